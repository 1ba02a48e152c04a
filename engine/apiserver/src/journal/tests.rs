use std::sync::{Condvar, Mutex};

use super::*;

/// A disk that a test holds still, or lets fail.
#[derive(Default)]
struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    still: bool,
    fails: bool,
    /// How often it was written to, or tried to be.
    asked: usize,
}

impl Disk {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn until(&self, done: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |s| !done(s)).unwrap());
    }
}

struct On(Arc<Disk>);

impl Sink for On {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut state = self.0.state.lock().unwrap();
        state.asked += 1;
        self.0.changed.notify_all();
        let mut state = self.0.changed.wait_while(state, |s| s.still).unwrap();
        if state.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.text.push_str(std::str::from_utf8(lines).unwrap());
        self.0.changed.notify_all();
        Ok(())
    }
}

fn on(disk: &Arc<Disk>) -> Journal {
    let lost = |lines| format!("{lines} lost");
    Journal::over(
        Box::new(On(Arc::clone(disk))),
        Box::new(lost),
        "test".to_owned(),
    )
}

#[test]
fn a_disk_that_stands_still_holds_nobody_up_and_what_is_lost_is_counted() {
    let disk = Arc::new(Disk::default());
    disk.set(|s| s.still = true);
    let journal = on(&disk);
    journal.write("first".to_owned());
    disk.until(|s| s.asked == 1);
    for n in 0..ROOM + 3 {
        journal.write(format!("line {n}"));
    }
    assert_eq!(journal.lost().get(), 3);
    disk.set(|s| s.still = false);
    drop(journal);
    let state = disk.state.lock().unwrap();
    let lines: Vec<&str> = state.text.lines().collect();
    assert_eq!(lines.len(), ROOM + 2);
    assert_eq!((lines[0], lines[1]), ("first", "3 lost"));
    assert_eq!(lines[ROOM + 1], format!("line {}", ROOM - 1));
}

#[test]
fn what_a_disk_refuses_is_counted_and_told_when_it_takes_lines_again() {
    let disk = Arc::new(Disk::default());
    disk.set(|s| s.fails = true);
    let journal = on(&disk);
    for n in 1..=2 {
        journal.write("gone".to_owned());
        disk.until(|s| s.asked == n);
    }
    disk.set(|s| s.fails = false);
    journal.write("there".to_owned());
    let lost = journal.lost();
    drop(journal);
    assert_eq!(disk.state.lock().unwrap().text, "there\n2 lost\n");
    assert_eq!(lost.get(), 2);
}

#[test]
fn a_file_is_its_owners_alone_goes_on_after_a_crash_and_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    std::fs::write(&path, "cut o").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut file = Rotating::open(&path, 20).unwrap();
    assert_eq!(mode(&path), 0o600);
    file.append(b"one\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "cut o\none\n");
    for n in 0..=KEPT + 1 {
        // Each as long as a file.
        file.append(format!("{n:0>19}\n").as_bytes()).unwrap();
    }
    assert_eq!(mode(&path), 0o600);
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    assert!(read(path.clone()).ends_with("10\n"));
    assert!(read(file.aside(1)).ends_with("9\n"));
    assert!(read(file.aside(KEPT)).ends_with("1\n"), "the oldest went");
    assert!(!file.aside(KEPT + 1).exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 10);
}

#[test]
fn a_file_that_cannot_be_put_aside_takes_lines_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let mut file = Rotating::open(&path, 4).unwrap();
    // Folders that are not empty are in the way.
    for number in [KEPT - 1, KEPT] {
        std::fs::create_dir_all(file.aside(number).join("x")).unwrap();
    }
    for line in [b"one\n", b"two\n"] {
        file.append(line).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("no/such/folder")] {
        let error = Journal::open(&path, |_| String::new()).err().unwrap();
        let name = path.display().to_string();
        assert!(error.to_string().contains(&name), "{error}");
    }
}
