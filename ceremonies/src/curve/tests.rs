//! The vectors of BIP-32, and what paths and tweaks mean.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use k256::elliptic_curve::group::GroupEncoding as _;
use k256::{ProjectivePoint, Scalar};
use proptest::prelude::*;

use super::*;
use crate::ids::Hash;

fn point(text: &str) -> Point {
    Point::decode(&hex::decode(text).unwrap()).unwrap()
}

/// Parent and child as (key, chain code), from the extended keys of BIP-32's test vectors 1 and 2.
const BIP32: [([&str; 2], &str, [&str; 2]); 4] = [
    (
        [
            "035a784662a4a20a65bf6aab9ae98a6c068a81c52e4b032c0fb5400c706cfccc56",
            "47fdacbd0f1097043b78c63c20c34ef4ed9a111d980047ad16282c7ae6236141",
        ],
        "m/1",
        [
            "03501e454bf00751f24b1b489aa925215d66af2234e3891c3b21a52bedb3cd711c",
            "2a7857631386ba23dacac34180dd1983734e444fdbf774041578e9b6adb37c19",
        ],
    ),
    (
        [
            "0357bfe1e341d01c69fe5654309956cbea516822fba8a601743a012a7896ee8dc2",
            "04466b9cc8e161e966409ca52986c584f07e9dc81f735db683c3ff6ec7b1503f",
        ],
        "m/2",
        [
            "02e8445082a72f29b75ca48748a914df60622a609cacfce8ed0e35804560741d29",
            "cfb71883f01676f587d023cc53a35bc7f88f724b1f8c2892ac1275ac822a3edd",
        ],
    ),
    (
        [
            "0357bfe1e341d01c69fe5654309956cbea516822fba8a601743a012a7896ee8dc2",
            "04466b9cc8e161e966409ca52986c584f07e9dc81f735db683c3ff6ec7b1503f",
        ],
        "m/2/1000000000",
        [
            "022a471424da5e657499d1ff51cb43c47481a03b1e77f951fe64cec9f5a48f7011",
            "c783e67b921d2beb8f6b389cc646d7263b4145701dadd2161548a8b078e65e9e",
        ],
    ),
    (
        [
            "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7",
            "60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689",
        ],
        "m/0",
        [
            "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea",
            "f0909affaa7ee7abe5dd4e100598d4dc53cd709d5a5c2cac40e7412f232f7c9c",
        ],
    ),
];

#[test]
fn children_are_those_of_bip_32() {
    for ([key, code], path, [child_key, child_code]) in BIP32 {
        let child = derive(&point(key), &code.parse().unwrap(), &path.parse().unwrap()).unwrap();
        assert_eq!((child.public_key, child.chain_code), (point(child_key), child_code.parse().unwrap()));
    }
}

#[test]
fn a_path_is_written_in_one_way() {
    for good in ["m", "m/0", "m/0/5", "m/2147483647/1/2/3/4/5/6/7"] {
        assert_eq!(good.parse::<Path>().unwrap().to_string(), good);
        assert_eq!(serde_json::from_str::<Path>(&format!("\"{good}\"")).unwrap().to_string(), good);
    }
    for bad in ["", "M/0", "m/", "m/00", "m/+1", "m//1", "0/1", "m/-1", "m/ 1", "m/4294967296"] {
        assert!(matches!(bad.parse::<Path>(), Err(InvalidPath::Form(_))), "{bad}");
    }
    for bad in ["m/0'", "m/0h", "m/0H", "m/2147483648"] {
        assert!(matches!(bad.parse::<Path>(), Err(InvalidPath::Hardened(_))), "{bad}");
    }
    assert_eq!("m/1/2/3/4/5/6/7/8/9".parse::<Path>(), Err(InvalidPath::Levels(9)));
}

proptest! {
    #[test]
    fn the_tweak_leads_from_the_wallets_key_to_the_child(
        secret in 1u64.., code: [u8; 32], levels in prop::collection::vec(0u32..1 << 31, 0..=MAX_LEVELS),
    ) {
        let secret = Scalar::from(secret);
        let encode = |secret: Scalar| (ProjectivePoint::GENERATOR * secret).to_affine().to_bytes();
        let key = Point::decode(&encode(secret)).unwrap();
        let child = derive(&key, &Hash::from(code), &Path::new(levels).unwrap()).unwrap();
        prop_assert_eq!(child.public_key, Point::decode(&encode(secret + child.tweak)).unwrap());
    }

    #[test]
    fn no_text_makes_a_path_panic(text in ".{0,90}") {
        let _ = text.parse::<Path>();
    }
}
