//! What is printed on a terminal: tables that fit it, colours only where they are wanted.

use std::io::Read as _;

use nix::pty::{Winsize, openpty};
use unicode_width::UnicodeWidthStr as _;

use crate::world::World;

/// Runs a command on a terminal of so many columns; gives what it printed there.
fn on_terminal(world: &World, columns: u16, args: &[&str]) -> String {
    let (text, code) = printed(world, columns, args, false);
    assert_eq!(code, 0, "{args:?}: {text}");
    text
}

/// The same with what it printed to standard error, if that is the terminal as well, and its exit code.
fn printed(world: &World, columns: u16, args: &[&str], errors: bool) -> (String, i32) {
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let mut command = world.command("nex", args);
    command.stdout(pty.slave.try_clone().unwrap());
    if errors {
        command.stderr(pty.slave.try_clone().unwrap());
    } else {
        command.stderr(std::process::Stdio::null());
    }
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
    let status = world.block_on(child.wait()).unwrap();
    (String::from_utf8(text).unwrap().replace("\r\n", "\n"), crate::ended::exit_code(status))
}

/// The text without the sequences that colour it.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
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

#[test]
fn every_table_fits_and_colours_are_where_they_are_wanted() {
    let mut world = World::new();
    let _up = world.up(&[]);
    let name = "a-service-with-a-name-of-some-length-and-more-than-that";
    let service = world.file("service.sh", "#!/bin/sh\nexec sleep 1000\n");
    for secret in ["db", "a-secret-with-a-name-of-some-length-that-is-still-one"] {
        world.nex_reading(&["secret", "set", secret], b"x").expect(0);
    }
    world.nex(&["devrun", &service, "--name", name, "PASSWORD=secret:db"]).expect(0);
    world.nex(&["devrun", &service, "--name", name, "--namespace", "another-namespace-with-a-long-name"]).expect(0);
    let function = world.file("echo.js", "(subject, payload) => payload");
    world.nex(&["devrun", &function, "--name", "echo", "--trigger", "every:1h", "--trigger_subject", "fn.echo"]).expect(0);
    world.nex(&["issuer", "add", "me", "--name", "somebody whose name is longer than the room that is left"]).expect(0);
    let id = world.ps().iter().find(|it| it["name"] == name).unwrap()["id"].as_str().unwrap().to_owned();
    let node = world.node_id();
    let tables: [&[&str]; 11] = [
        &["ps"],
        &["ps", "-A"],
        &["ps", "--all", "-A"],
        &["node", "ls"],
        &["node", "info", &node],
        &["describe", name],
        &["describe", "echo"],
        &["artifact", "ls"],
        &["secret", "ls"],
        &["issuer", "ls"],
        &["whoami"],
    ];
    for no_color in [false, true] {
        if no_color {
            world.set("NO_COLOR", "1");
        }
        for columns in [80, 100, 160] {
            for args in tables {
                let text = on_terminal(&world, columns, args);
                assert!(!no_color || !text.contains('\u{1b}'), "{args:?}: {text:?}");
                for line in plain(&text).lines() {
                    assert!(line.width() <= usize::from(columns), "{args:?} on {columns} columns:\n{text}");
                }
            }
            assert!(on_terminal(&world, columns, &["ps", "-A"]).contains(&id), "what is to be pasted is whole");
        }
        let (failed, code) = printed(&world, 80, &["stop", "nosuch"], true);
        assert_eq!((code, failed.contains('\u{1b}')), (1, !no_color), "{failed:?}");
        assert!(plain(&failed).contains("next: see what runs with `nex ps`"), "{failed:?}");
    }
    let narrow = on_terminal(&world, 80, &["artifact", "ls"]);
    assert!(narrow.contains('…') && on_terminal(&world, 80, &["artifact", "ls", "--wide"]).contains(name), "{narrow}");
    // Where there is no terminal there are no colours.
    world.unset("NO_COLOR");
    assert!(!world.nex(&["stop", "nosuch"]).expect(1).stderr.contains('\u{1b}'));
}
