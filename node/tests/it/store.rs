//! The store's file: literally the one that is named, private, still there, and free of what it claims to have erased.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ceremonies::ids::{Generation, Hash, NodeIndex};
use node::config::Config;
use node::core::{StoreOp, StoreReply};
use node::store::{FileError, PendingShare, Store, StoreError, sqlite_url};
use sqlx::{AnyPool, Executor as _, Row as _};

/// A configuration in a folder of this name, with this store.
fn configured(folder: &Path, store: &str) -> Config {
    std::fs::create_dir_all(folder).unwrap();
    let text = crate::config::without_host();
    let text = text.replace("\"sqlite:agent.db\"", &format!("'''sqlite:{store}'''"));
    std::fs::write(folder.join("node.toml"), text).unwrap();
    Config::load(&folder.join("node.toml")).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "node.toml" && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn node() -> NodeIndex {
    NodeIndex::new(1).unwrap()
}

fn share(generation: u32, blob: &[u8]) -> PendingShare {
    PendingShare {
        wallet: "treasury".parse().unwrap(),
        generation: Generation(generation),
        ceremony: format!("dkg-treasury-{generation}").parse().unwrap(),
        record: Hash::of_bytes(&generation.to_be_bytes()),
        blob: blob.to_vec(),
    }
}

#[tokio::test]
async fn store_opens_literally_the_file_that_is_named_and_no_other() {
    let all = tempfile::tempdir().unwrap();
    for (place, folder, store) in [
        (0, "plain", "store.db"),
        (1, "plain", "store.db?mode=memory"),
        (2, "plain", "sto%72e.db"),
        (3, "plain", "100%.db"),
        (4, "plain", "a#b&c=d;e.db"),
        (5, "plain", "white space.db"),
        (6, "plain", ":memory:"),
        (7, "plain", "file:x.db"),
        (8, "plain", "straße.db"),
        (9, "plain", "it's \"quoted\" + more.db"),
        (10, "branch%2Fname", "store.db"),
        (11, "what?mode=ro", "store.db"),
    ] {
        let folder = all.path().join(place.to_string()).join(folder);
        let config = configured(&folder, store);
        let open = Store::open(&config.store).await.unwrap();
        open.put_pending(&share(1, b"sealed")).await.unwrap();
        assert_eq!(names(&folder), [store], "{store}");
        let file = folder.join(store);
        assert_eq!(mode(&file), 0o600, "{store}");
        assert!(file.metadata().unwrap().len() > 0, "{store}: the shares are in another file");
        assert_eq!(names(folder.parent().unwrap()).len(), 1, "{store}");
    }
}

#[tokio::test]
async fn store_file_that_others_may_read_is_made_private_and_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    Store::open(&format!("sqlite:{}", path.display())).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    let refused = Store::open(&format!("sqlite:{}", folder.path().display())).await.unwrap_err();
    assert!(matches!(refused, StoreError::File(FileError::NotFile(_))), "{refused}");
    let refused = Store::open("sqlite:/dev/null").await.unwrap_err();
    assert!(matches!(refused, StoreError::File(FileError::NotFile(_))), "{refused}");
}

#[tokio::test]
async fn store_that_was_deleted_or_replaced_while_it_is_open_takes_nothing_and_says_so() {
    type Harm = fn(&Path);
    let harms: [Harm; 5] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::rename(path, path.with_extension("old")).unwrap(),
        |path| {
            std::fs::copy(path, path.with_extension("copy")).unwrap();
            std::fs::rename(path.with_extension("copy"), path).unwrap();
        },
        |path| std::fs::File::create(path).unwrap().set_len(0).unwrap(),
        |path| std::fs::remove_file(path.with_extension("db-wal")).unwrap(),
    ];
    for harm in harms {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Store::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let probe = || store.perform(node(), StoreOp::Probe(10));
        assert_eq!(probe().await.unwrap(), StoreReply::Held(Vec::new()));
        harm(&path);
        let refused = probe().await.unwrap_err();
        assert!(matches!(refused, StoreError::File(FileError::Gone(_))), "{refused}");
        assert!(refused.to_string().contains("store.db"), "{refused}");
    }
}

/// A second program with the store's file open.
async fn beside(path: &Path) -> AnyPool {
    AnyPool::connect(&sqlite_url(path)).await.unwrap()
}

#[tokio::test]
async fn store_that_takes_no_writes_fails_its_probe_though_it_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await.unwrap();
    let other = beside(&path).await;
    let mut locked = other.acquire().await.unwrap();
    locked.execute("BEGIN IMMEDIATE").await.unwrap();
    assert!(store.held(10).await.unwrap().is_empty());
    let refused = store.perform(node(), StoreOp::Probe(10)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
    locked.execute("ROLLBACK").await.unwrap();
    store.perform(node(), StoreOp::Probe(10)).await.unwrap();
}

fn holds(folder: &Path, piece: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(piece.len()).any(|window| window == piece)
    })
}

#[tokio::test]
async fn old_shares_are_not_said_deleted_while_a_reader_keeps_them_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await.unwrap();
    let old = [b"a sealed share of the first generation, ".as_slice(), &[7; 4000]].concat();
    store.put_pending(&share(1, &old)).await.unwrap();
    store.put_pending(&share(2, b"the next")).await.unwrap();
    let wallet = "treasury".parse().unwrap();

    let other = beside(&path).await;
    let mut reader = other.acquire().await.unwrap();
    reader.execute("BEGIN").await.unwrap();
    let count = reader.fetch_one("SELECT count(*) FROM shares").await.unwrap();
    assert_eq!(count.try_get::<i64, _>(0).unwrap(), 2);
    let refused = tokio::time::timeout(Duration::from_secs(20), store.delete_before(&wallet, Generation(2)))
        .await
        .unwrap();
    assert!(matches!(refused, Err(StoreError::NotErased)), "{refused:?}");
    assert!(holds(folder.path(), &old[..30]), "the reader does not keep anything: this tests nothing");

    reader.execute("ROLLBACK").await.unwrap();
    store.delete_before(&wallet, Generation(2)).await.unwrap();
    assert!(!holds(folder.path(), &old[..30]));
    assert_eq!(store.held(10).await.unwrap().len(), 1);
}

/// Reads the store as another program would, to the end.
fn read_elsewhere(store: &Path) {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT count(*) FROM positions').fetchone(); db.close()";
    let done = Command::new("python3").args(["-c", script]).arg(store).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn program_that_reads_the_store_and_ends_takes_nothing_from_an_agent_that_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let url = format!("sqlite:{}", path.display());
    // An agent opens its store twice: to see under which charter it is, and to work.
    let first = Store::open(&url).await.unwrap();
    let store = Store::open(&url).await.unwrap();
    drop(first);
    store.probe().await.unwrap();
    read_elsewhere(&path);
    store.probe().await.unwrap();
    store.put_pending(&share(1, b"sealed")).await.unwrap();
    read_elsewhere(&path);
    let again = Store::open(&url).await.unwrap();
    assert_eq!(
        again.share(&share(1, b"").wallet, Generation(1), &share(1, b"").record).await.unwrap().unwrap().blob,
        b"sealed"
    );
}

#[tokio::test]
async fn database_that_nothing_answers_for_is_named_as_that() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://custody@{}/custody", closed.local_addr().unwrap());
    drop(closed);
    let refused = Store::open(&url).await.unwrap_err();
    let why = ceremonies::text::chain(&refused);
    assert!(why.to_lowercase().contains("refused"), "{why}");
}
