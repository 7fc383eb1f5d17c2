//! Tests with real processes, in one program, so that they run beside each other: whoever starts a node waits for its turn
//! (`load_tests::rig::turn`), and more than two run at once where `RUST_TEST_THREADS` allows it.

mod bundle;
mod checks;
mod clients;
mod crowd;
mod differences;
mod disks;
mod documents;
mod drill;
mod events;
mod fronts;
mod grow;
mod hostile;
mod kills;
mod notices;
mod notify;
mod operator;
mod pairing;
mod powerloss;
mod reload;
mod scripts;
mod stamps;
mod stop;
mod stores;
mod upgrade;
mod users;
mod words;
