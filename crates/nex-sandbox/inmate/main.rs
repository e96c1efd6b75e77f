//! The prisoner of the tests.
fn main() -> std::process::ExitCode {
    let uid = std::env::args().nth(2).and_then(|uid| uid.parse().ok()).unwrap_or(712_000);
    if std::env::args().nth(1).as_deref() == Some("--probe") {
        return nex_process::jail::probe_main(uid);
    }
    match nex_process::jail::enter(std::io::stdin()) {
        Ok(entered) => {
            println!("{entered:?}");
            let mut c = std::process::Command::new("/bin/sh");
            c.arg("-c").arg(String::from_utf8(entered.identity).unwrap());
            let st = c.status();
            println!("{st:?}");
        }
        Err(error) => { eprintln!("{error} {:?}", error); return std::process::ExitCode::FAILURE; }
    }
    std::process::ExitCode::SUCCESS
}
