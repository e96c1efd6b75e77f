//! The history as its users see it: kept across processes, paged, with its losses said.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nkeys::KeyPair;

use super::*;

fn by() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

struct Kept {
    history: History,
    scope: TaskScope,
    namespace: Namespace,
    name: WorkloadName,
    id: WorkloadId,
}

impl Kept {
    fn open(root: &Path, limit: u64) -> Self {
        let node = KeyPair::new_server().public_key().parse().unwrap();
        let (history, scope) = (History::open(root.to_owned(), limit, &node), TaskScope::new("test"));
        history.start(&scope);
        let namespace = "default".parse().unwrap();
        Self { history, scope, namespace, name: "echo".parse().unwrap(), id: WorkloadId::new(1) }
    }

    fn say(&self, text: &str) -> Option<u64> {
        self.history.line((&self.namespace, &self.name, &self.id), Level::Info, text)
    }

    async fn ask(&self, request: HistoryRequest) -> HistoryResponse {
        self.history.page(self.namespace.clone(), HistoryKind::Logs, request, by()).await.unwrap()
    }

    /// All pages, as a client asks for them.
    async fn all(&self, mut request: HistoryRequest) -> (Vec<HistoryLine>, u32) {
        let (mut lines, mut pages) = (Vec::new(), 0);
        loop {
            let page = self.ask(request.clone()).await;
            assert!(serde_json::to_vec(&page).unwrap().len() < 512 * 1024, "a page fits into a message");
            lines.extend(page.lines);
            pages += 1;
            match page.next {
                Some(next) => request = HistoryRequest { after: Some(next), until: Some(page.until), tail: None, ..request },
                None => return (lines, pages),
            }
        }
    }
}

fn texts(lines: &[HistoryLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_crash_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = Kept::open(dir.path(), 1 << 20);
    let number = first.say("one").unwrap();
    first.say("two");
    assert_eq!(texts(&first.all(HistoryRequest::default()).await.0), ["one", "two"]);
    // As a killed process leaves it.
    first.scope.shutdown(Duration::ZERO).await;
    let second = Kept::open(dir.path(), 1 << 20);
    assert!(second.say("three").unwrap() > number + 1);
    let lines = second.all(HistoryRequest::default()).await.0;
    assert_eq!(texts(&lines), ["one", "two", "three"]);
    assert!(lines.is_sorted_by_key(|line| line.seq));
    let after = HistoryRequest { after: Some(number), ..HistoryRequest::default() };
    assert_eq!(texts(&second.all(after).await.0), ["two", "three"]);
    let other = second.history.page("other".parse().unwrap(), HistoryKind::Logs, HistoryRequest::default(), by()).await.unwrap();
    assert_eq!((other.lines.len(), other.next), (0, None));
}

#[tokio::test]
async fn pages_have_every_line_once_and_the_last_ones_are_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), 4 << 20);
    for number in 0..300 {
        kept.say(&format!("{number} {}", "\u{1}".repeat(1_000)));
    }
    let (lines, pages) = kept.all(HistoryRequest::default()).await;
    assert!(pages > 3, "{pages}");
    let numbers: Vec<String> = lines.iter().map(|line| line.text.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(numbers, (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
    for tail in [0, 1, 150, 299, 300, 1_000] {
        let (last, _) = kept.all(HistoryRequest { tail: Some(tail), ..HistoryRequest::default() }).await;
        assert_eq!(texts(&last), texts(&lines[300 - tail.min(300)..]), "{tail}");
    }
    let since = HistoryRequest { since_ms: Some(i64::MAX), ..HistoryRequest::default() };
    assert_eq!(kept.all(since).await.0.len(), 0);
    let until = HistoryRequest { until: Some(lines[9].seq), tail: Some(2), ..HistoryRequest::default() };
    assert_eq!(texts(&kept.all(until).await.0), texts(&lines[8..10]));
}

#[tokio::test]
async fn damaged_records_are_passed_over_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::open(dir.path(), 1 << 20);
    for text in ["one", "two", "three"] {
        kept.say(text);
    }
    assert!(kept.history.flushed(by()).await);
    let ring = dir.path().join("default.logs");
    let file = fs::read_dir(ring).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("two", "twx") + "torn").unwrap();
    let page = kept.ask(HistoryRequest::default()).await;
    assert_eq!((texts(&page.lines), page.damaged), (vec!["one", "three"], 2));
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_counted_and_said_when_it_does_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("history");
    // No directory can be made where a file is, whoever one is.
    fs::write(&root, "in the way").unwrap();
    let kept = Kept::open(&root, 1 << 20);
    kept.say("one");
    kept.say("two");
    assert!(kept.history.flushed(by()).await);
    assert_eq!(kept.history.summary().lost, 2);
    fs::remove_file(&root).unwrap();
    kept.say("three");
    assert!(kept.history.flushed(by()).await);
    let lines = kept.all(HistoryRequest { workload: Some("echo".into()), ..HistoryRequest::default() }).await.0;
    assert_eq!(lines[0].text, "three");
    assert!(lines[1].text.starts_with("2 log lines were not kept by the node: "), "{lines:?}");
}

/// A file system of so many bytes, mounted as long as this lives; only root can have one.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(bytes: u64) -> Result<Self, nix::Error> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))?;
        Ok(Self { dir })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_pushes_out_nothing_that_was_kept_and_what_it_did_not_take_is_said_when_there_is_room() {
    let disk = match SmallDisk::mount(256 * 1024) {
        Ok(disk) => disk,
        Err(error) => {
            let test = "a_full_disk_pushes_out_nothing_that_was_kept_and_what_it_did_not_take_is_said_when_there_is_room";
            nex_testkit::skip!(test, format_args!("no file system can be mounted: {error}"));
        }
    };
    let kept = Kept::open(&disk.dir.path().join("history"), 64 << 20);
    kept.say("first");
    assert!(kept.history.flushed(by()).await);
    fs::write(disk.dir.path().join("ballast"), vec![0; 128 * 1024]).unwrap();
    let text = "x".repeat(4_000);
    for _ in 0..200 {
        kept.say(&text);
        assert!(kept.history.flushed(by()).await);
    }
    let lost = kept.history.summary().lost;
    assert!((100..200).contains(&lost), "{lost}");
    let (lines, _) = kept.all(HistoryRequest::default()).await;
    assert_eq!((lines[0].text.as_str(), lines.len() as u64), ("first", 1 + 200 - lost));
    let files = fs::read_dir(disk.dir.path().join("history/default.logs")).unwrap().count();
    assert!(files < 10, "{files}");
    fs::remove_file(disk.dir.path().join("ballast")).unwrap();
    kept.say("last");
    assert!(kept.history.flushed(by()).await);
    let page = kept.ask(HistoryRequest { tail: Some(2), ..HistoryRequest::default() }).await;
    assert_eq!((page.lines[0].text.as_str(), page.damaged), ("last", 0));
    assert!(page.lines[1].text.starts_with(&format!("{lost} log lines were not kept by the node: ")), "{page:?}");
}

#[tokio::test]
async fn a_flood_waits_for_no_disk_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let node = KeyPair::new_server().public_key().parse().unwrap();
    // Nobody writes.
    let history = History::open(dir.path().to_owned(), 1 << 20, &node);
    let (namespace, name, id) = ("default".parse().unwrap(), "echo".parse().unwrap(), WorkloadId::new(1));
    let text = "x".repeat(16 * 1024);
    let kept = (0..2_000).filter(|_| history.line((&namespace, &name, &id), Level::Info, &text).is_some()).count();
    assert!((400..600).contains(&kept), "{kept}");
    assert_eq!(history.summary().lost, 2_000 - kept as u64);
}
