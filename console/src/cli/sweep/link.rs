//! The amount that a payment link asks for (BIP-21, EIP-681). What is paid is given otherwise: a link that asks for another
//! amount is refused, and never quietly overruled.

use anyhow::{Context as _, Result, bail};
use ceremonies::chain::address::Network;
use ceremonies::text::{one_line, shortened};

/// How many decimals of a bitcoin are one satoshi.
const SATOSHI: i32 = 8;

/// A decimal number, shifted to the left by so many digits; none where that is not whole, or too large.
fn shifted(number: &str, by: i32) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part = part.trim_end_matches('0');
    let zeros = by.checked_sub(i32::try_from(part.len()).ok()?)?;
    let is_number = !(whole.is_empty() && part.is_empty() && !number.contains('0'))
        && whole.bytes().chain(part.bytes()).all(|digit| digit.is_ascii_digit());
    let digits: u128 = if is_number { format!("0{whole}{part}").parse().ok()? } else { return None };
    if digits == 0 {
        return Some(0);
    }
    let unit = 10_u128.checked_pow(zeros.unsigned_abs())?;
    if zeros >= 0 { digits.checked_mul(unit) } else { digits.is_multiple_of(unit).then_some(digits / unit) }
}

/// An amount as a link of this network writes it, in the network's smallest unit.
fn smallest(network: Network, text: &str) -> Option<u128> {
    match network {
        Network::Bitcoin(_) => shifted(text, SATOSHI),
        Network::Ethereum(_) => {
            let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
            shifted(number, exponent.parse().ok()?)
        }
    }
}

/// The name under which a link of this network has its amount, and the one under which those of others have theirs.
fn amount(network: Network) -> (&'static str, &'static str) {
    match network {
        Network::Bitcoin(_) => ("amount", "value"),
        Network::Ethereum(_) => ("value", "amount"),
    }
}

/// The parameters of a link, each with its value.
fn parameters(link: &str) -> impl Iterator<Item = (&str, &str)> {
    let (_, parameters) = link.split_once('?').unwrap_or_default();
    parameters.split('&').filter(|parameter| !parameter.is_empty()).map(|parameter| {
        // One without a value is still asked for.
        parameter.split_once('=').unwrap_or((parameter, ""))
    })
}

/// How much of a value is repeated.
const SHOWN: usize = 40;

/// What a link says besides address and amount: none of that is taken, and whoever reckons with it must know. None where it
/// says nothing else.
pub(super) fn not_taken(link: &str, network: Network) -> Option<String> {
    let others = parameters(link).filter(|(parameter, _)| !parameter.eq_ignore_ascii_case(amount(network).0));
    let others: Vec<String> = others
        .map(|(parameter, value)| {
            one_line(&format!("{}={}", shortened(parameter, SHOWN), shortened(value, SHOWN)))
        })
        .collect();
    let instead = match network {
        Network::Bitcoin(_) => "",
        Network::Ethereum(_) => "; gas and fees are those of --gas, --max-fee and --tip",
    };
    (!others.is_empty())
        .then(|| format!("note: not taken from the payment link: {}{instead}", others.join(", ")))
}

/// Refuses a link that asks for another amount than is paid, in the network's smallest unit. An address alone asks for none.
///
/// # Errors
/// What it asks for, and what would be paid.
pub(super) fn must_ask_for(link: &str, network: Network, paid: u128) -> Result<()> {
    let (name, elsewhere) = amount(network);
    if let Some((_, asked)) =
        parameters(link).find(|(parameter, _)| parameter.eq_ignore_ascii_case(elsewhere))
    {
        bail!(
            "the payment link says `{elsewhere}={}`, and links of this network say `{name}`: ask its author what is to \
             be paid, and give the address alone; nothing was written",
            one_line(&shortened(asked, SHOWN))
        );
    }
    let unit = match network {
        Network::Bitcoin(_) => "sat",
        Network::Ethereum(_) => "wei",
    };
    for (_, asked) in parameters(link).filter(|(parameter, _)| parameter.eq_ignore_ascii_case(name)) {
        let amount = smallest(network, asked).with_context(|| {
            format!(
                "the payment link asks for `{}`, which cannot be read as an amount; nothing was written",
                one_line(asked)
            )
        })?;
        if amount != paid {
            bail!(
                "the payment link asks for {amount} {unit}, and this transaction would pay {paid} {unit}; nothing was \
                 written. To pay that all the same, give the address alone"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn amount_is_read_to_the_last_digit_or_not_at_all() {
        let (bitcoin, ether) = ("bitcoin".parse().unwrap(), "ethereum-1".parse().unwrap());
        for (text, amount) in [
            ("20.3", Some(2_030_000_000)),
            ("0.00000001", Some(1)),
            (".5", Some(50_000_000)),
            ("7.", Some(700_000_000)),
            ("0", Some(0)),
            ("1.000000000", Some(100_000_000)),
            ("0.000000001", None),
            ("1e3", None),
            ("-1", None),
            ("+1", None),
            ("1,5", None),
            ("", None),
            (".", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(smallest(bitcoin, text), amount, "{text}");
        }
        for (text, amount) in [
            ("2.014e18", Some(2_014_000_000_000_000_000)),
            ("5", Some(5)),
            ("5E2", Some(500)),
            ("500e-2", Some(5)),
            ("5e-1", None),
            ("0.5", None),
            ("1e99", None),
            ("1e-99", None),
            ("0e99", Some(0)),
            ("1e", None),
            ("1e1e1", None),
            ("0x10", None),
        ] {
            assert_eq!(smallest(ether, text), amount, "{text}");
        }
    }

    #[test]
    fn link_that_names_its_amount_twice_must_mean_the_same_and_one_that_cannot_be_read_is_refused() {
        let bitcoin: Network = "bitcoin".parse().unwrap();
        let refused = |link: &str| must_ask_for(link, bitcoin, 5).unwrap_err().to_string();
        assert!(must_ask_for("bitcoin:1x?amount=0.00000005&amount=.00000005", bitcoin, 5).is_ok());
        assert!(must_ask_for("bitcoin:1x?note=amount", bitcoin, 5).is_ok());
        assert!(
            refused("bitcoin:1x?Value=7").contains("says `value=7`, and links of this network say `amount`")
        );
        let ether = "ethereum-1".parse().unwrap();
        let wrong = must_ask_for("ethereum:0x1@1?amount=5&value=5", ether, 5).unwrap_err().to_string();
        assert!(wrong.contains("says `amount=5`, and links of this network say `value`"), "{wrong}");
        assert!(refused("bitcoin:1x?amount=0.00000005&AMOUNT=1").contains("asks for 100000000 sat"));
        assert!(refused("bitcoin:1x?amount=lots\u{1b}[2J").contains("`lots [2J`, which cannot be read"));
    }
    #[test]
    fn what_a_link_says_besides_its_amount_is_said_to_be_not_taken() {
        let (bitcoin, ether) = ("bitcoin".parse().unwrap(), "ethereum-1".parse().unwrap());
        for (link, network, left) in [
            ("0x1", ether, None),
            ("ethereum:0x1@1?value=5", ether, None),
            ("ethereum:0x1@1?VALUE=5&", ether, None),
            ("bitcoin:1x?amount=5", bitcoin, None),
            (
                "ethereum:0x1@1?value=5&gas=90000&gasPrice=7e9",
                ether,
                Some("link: gas=90000, gasPrice=7e9; gas and"),
            ),
            (
                "ethereum:0x1@1?gasLimit",
                ether,
                Some("link: gasLimit=; gas and fees are those of --gas, --max-fee"),
            ),
            ("bitcoin:1x?value=5&label=a\u{1b}[2J", bitcoin, Some("link: value=5, label=a [2J")),
        ] {
            let said = not_taken(link, network);
            assert_eq!(said.is_some(), left.is_some(), "{link}: {said:?}");
            assert!(said.unwrap_or_default().contains(left.unwrap_or_default()), "{link}");
        }
        let long = not_taken(&format!("bitcoin:1x?label={}", "x".repeat(9000)), bitcoin).unwrap();
        assert!(long.len() < 200 && long.ends_with('…'), "{long}");
    }
}
