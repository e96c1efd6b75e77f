//! What is printed on a terminal: tables that fit it, colours only where they are wanted.

use std::io::Read as _;

use nix::pty::{Winsize, openpty};
use unicode_width::UnicodeWidthStr as _;

use crate::world::World;

/// Runs a command on a terminal of so many columns; gives what it printed there.
fn on_terminal(world: &World, columns: u16, args: &[&str]) -> String {
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let mut command = world.command("nex", args);
    command.stdout(pty.slave.try_clone().unwrap()).stderr(std::process::Stdio::null());
    let mut child = world.block_on(async { command.spawn().unwrap() });
    // The terminal ends with its last writer.
    drop((command, pty.slave));
    let mut terminal = std::fs::File::from(pty.master);
    let mut text = Vec::new();
    let mut part = [0; 4096];
    // EIO is how a terminal says that nobody is left to write to it.
    while let Ok(count @ 1..) = terminal.read(&mut part) {
        text.extend_from_slice(&part[..count]);
    }
    assert!(world.block_on(child.wait()).unwrap().success(), "{args:?}");
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

#[test]
fn tables_fit_terminals_of_any_width_and_say_all_where_that_is_asked() {
    let world = World::new();
    let _up = world.up(&[]);
    let name = "a-function-with-a-name-of-some-length";
    let triggers = ["orders.created.europe.west", "orders.created.europe.north"];
    let function = world.file("echo.js", "(subject, payload) => payload");
    world
        .nex(&["devrun", &function, "--name", name, "--trigger_subject", triggers[0], "--trigger_subject", triggers[1]])
        .expect(0);
    let crash = world.file("crash.sh", "#!/bin/sh\necho a line that is long enough to fill the rest of a narrow table\nexit 7\n");
    world.nex(&["devrun", &crash, "--settle", "none"]).expect(0);
    world.eventually("it has ended", || world.ps().len() == 1);
    let id = world.ps()[0]["id"].as_str().unwrap().to_owned();
    let node = world.node_id();
    let full = ["node", "info", &node, "--full"];
    for columns in [60, 80, 100, 160] {
        for args in [&["ps", "--all"][..], &["node", "ls"], &["node", "ls", "--full"], &full, &["node", "probe"]] {
            let text = on_terminal(&world, columns, args);
            for line in text.lines() {
                assert!(line.width() <= usize::from(columns), "{args:?} on {columns} columns:\n{text}");
            }
        }
        assert!(on_terminal(&world, columns, &["ps"]).contains(&id), "what is to be pasted is whole");
    }
    let wide = on_terminal(&world, 80, &["ps", "--wide"]);
    assert!(wide.contains(name) && wide.contains(&triggers.join(", ")), "{wide}");
    let narrow = on_terminal(&world, 80, &["ps"]);
    assert!(!narrow.contains(name) && narrow.contains('…'), "{narrow}");
    // Where there is no terminal, nothing is shortened.
    world.nex(&["ps"]).expect(0).says(&[name, triggers[1]]);
}
