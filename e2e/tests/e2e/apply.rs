//! `nex apply`: what a file says is what runs, and nothing is done twice.

use nex_testkit::guest;
use serde_json::Value;

use crate::world::World;

const SLEEPER: &str = "#!/bin/sh\necho I say $WORDS\nexec sleep 1000\n";

fn ids(world: &World, name: &str) -> Vec<String> {
    let all = world.ps();
    let named = all.iter().filter(|workload| workload["name"] == name);
    named.map(|workload| workload["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_the_file_says_runs_and_applied_again_nothing_changes() {
    let world = World::new();
    let _up = world.up(&[]);
    world.file("greet.mjs", guest::GREET_MJS);
    world.file("service.sh", SLEEPER);
    world.file("words", "a secret\n");
    let file = |words: &str, copies: u8| {
        world.file(
            "nex.toml",
            format!(
                "project = 'shop'\n[workloads.greet]\nfile = 'greet.mjs'\ntriggers = ['fn.greet']\ncopies = {copies}\n\
                 [workloads.service]\nfile = 'service.sh'\nenvironment = {{ WORDS = {words} }}\n"
            ),
        );
    };
    file("{ file = 'words' }", 2);

    world.nex(&["apply", "--dry-run"]).expect(0).says(&["+ greet: start 2 copies", "+ service: start 1 copy", "a dry run"]);
    assert_eq!(world.ps(), Vec::<Value>::new());
    world.nex(&["apply"]).expect(0).says(&["✅ Applied"]).says_not("a secret");
    world.nex(&["call", "fn.greet", "world"]).expect(0).says(&["Hello, world!"]);
    world.nex(&["logs", "service", "--tail", "5"]).expect(0).says(&["I say a secret"]);
    let (greets, service) = (ids(&world, "greet"), ids(&world, "service"));
    assert_eq!((greets.len(), service.len()), (2, 1));

    let again = world.nex(&["apply"]).expect(0);
    again.says(&["= greet: unchanged, 2 copies", "= service: unchanged, 1 copy", "All is as it should be"]);
    assert_eq!((ids(&world, "greet"), ids(&world, "service")), (greets.clone(), service.clone()));

    // One setting of one workload: the other one is left alone.
    file("'now another'", 2);
    world.nex(&["apply"]).expect(0).says(&["~ service: replace 1 copy: its settings have changed", "= greet: unchanged"]);
    world.nex(&["logs", "service", "--tail", "5"]).expect(0).says(&["I say now another"]);
    assert!(ids(&world, "service") != service && ids(&world, "greet") == greets);

    // Fewer copies, and a file that has changed.
    file("'now another'", 1);
    world.file("greet.mjs", guest::GREET_MJS.replace("Hello", "Good morning"));
    let told = world.nex(&["apply", "--json"]).expect(0).json();
    assert_eq!((&told["changes"][0]["name"], &told["changes"][0]["why"]), (&"greet".into(), &"its file has changed".into()));
    assert_eq!((told["changes"][0]["stop"].as_array().unwrap().len(), ids(&world, "greet").len()), (1, 1));
    world.nex(&["call", "fn.greet", "world"]).expect(0).says(&["Good morning, world!"]);
}

#[test]
fn what_is_not_in_the_file_any_more_is_stopped_where_that_is_asked_and_nothing_else_is() {
    let world = World::new();
    let _up = world.up(&[]);
    let script = world.file("service.sh", SLEEPER);
    world.nex(&["devrun", &script, "--name", "by-hand"]).expect(0);
    world.file("nex.toml", "project = 'shop'\n[workloads.one]\nfile = 'service.sh'\n[workloads.two]\nfile = 'service.sh'\n");
    world.file("other.toml", "project = 'other'\n[workloads.three]\nfile = 'service.sh'\n");
    world.nex(&["apply"]).expect(0);
    world.nex(&["apply", "other.toml"]).expect(0);
    world.file("nex.toml", "project = 'shop'\n[workloads.one]\nfile = 'service.sh'\n");
    world.nex(&["apply"]).expect(0).says(&["? two: ", "--prune stops it"]);
    assert_eq!(world.ps().len(), 4);
    world.nex(&["apply", "--prune", "--dry-run"]).expect(0).says(&["- two: stop "]);
    assert_eq!(world.ps().len(), 4);
    world.nex(&["apply", "--prune"]).expect(0).says(&["- two: stop ", "✅ Applied"]);
    let left: Vec<_> = world.ps().iter().map(|workload| workload["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, ["by-hand", "one", "three"]);
}

#[test]
fn a_mistake_in_the_file_changes_nothing_and_is_named_with_its_place() {
    let world = World::new();
    let _up = world.up(&[]);
    world.file("service.sh", SLEEPER);
    let good = "project = 'shop'\n[workloads.service]\nfile = 'service.sh'\n";
    world.file("nex.toml", good);
    world.nex(&["apply"]).expect(0);
    let before = ids(&world, "service");
    world.file("crash.sh", "#!/bin/sh\necho no database >&2\nexit 7\n");
    for (text, code, told) in [
        ("[workloads.service]\nfile = 'no-such.sh'\n", 1, "no-such.sh"),
        ("[workloads.service]\nfiel = 'service.sh'\n", 2, "line 2: unknown field `fiel`"),
        ("[workloads.service]\nfile = 'service.sh'\ntriggers = ['a']\n", 2, "leave these triggers out"),
        ("[workloads.service]\nfile = 'service.sh'\nmachine = 'huge'\n", 1, "no machine class 'huge'"),
        ("[workloads.service]\nfile = 'crash.sh'\n", 1, "no database"),
    ] {
        world.file("nex.toml", text);
        world.nex(&["apply"]).expect(code).says(&[told]);
        assert_eq!(ids(&world, "service"), before, "{text}");
    }
    let stranger = nkeys::KeyPair::new_server().public_key();
    world.file("nex.toml", good.replace("service.sh", "crash.sh"));
    world.nex(&["apply", "--node", &stranger]).expect(4).says(&["it is not among the nodes asked for"]);
    world.file("nex.toml", format!("{good}nodes = ['{}']\nargv = ['new']\n", world.node_id()));
    world.nex(&["apply", "--node", &stranger]).expect(2).says(&["none of its nodes is among those of --node"]);
    assert_eq!(ids(&world, "service"), before);
    world.nex(&["apply", "nowhere.toml"]).expect(1).says(&["nowhere.toml"]);
}
