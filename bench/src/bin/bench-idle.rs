//! A minimal program: as a guest's init it powers the machine off at once, otherwise it waits to be killed.

fn main() -> std::io::Result<()> {
    if std::process::id() == 1 {
        return nex_process::guest::restart();
    }
    loop {
        std::thread::park();
    }
}
