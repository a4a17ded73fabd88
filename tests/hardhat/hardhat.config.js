// A chain of its own: no accounts that everybody has the keys of, and a block for every transaction.
module.exports = { networks: { hardhat: { chainId: 31337, accounts: [] } } };
