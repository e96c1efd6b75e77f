//! The lab's machine: how it is prepared, and how a script runs in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::kernel::{self, Kernel};
use crate::shell::{self, run_watching, target_dir};

/// Programs, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("/usr/sbin/depmod", "kmod"),
    ("/usr/bin/setpriv", "util-linux"),
];
/// Memory of the machine, MiB; files written in it are in memory too.
const MEMORY_MIB: u64 = 8 * 1024;
/// With less memory there is no room for guests.
const MIN_MEMORY_MIB: u64 = 3 * 1024;
/// A host with cgroup v2 only and Landlock; what makes emulation slow is off.
const BOOT: &str = "console=ttyS0 quiet mitigations=off nokaslr cgroup_no_v1=all lsm=landlock panic=-1";
/// Times a script is begun, where the machine stands still: its watchdog ends it then. Emulated KVM locks up in one of many runs.
const RUNS: u32 = 2;

/// The parts of the machine.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: PathBuf,
    kernel: Kernel,
    busybox: PathBuf,
    memory_mib: u64,
}

/// How a run of the machine ended.
#[derive(Debug)]
enum Ended {
    /// With the command, whose exit code this is.
    Code(u8),
    /// Before it: the kernel panicked, or stood still until the watchdog ended it.
    Early { console: String },
}

/// Runs a command in the lab, or a shell; returns its exit code.
pub(crate) fn run(command: &[String]) -> Result<u8> {
    let lab = Lab::prepare()?;
    let directory = std::env::current_dir()?;
    if command.is_empty() {
        println!("(the lab is booting; 'exit' ends it; what is written to /run/lab/out stays, in target/lab/out)");
        return lab.enter(&script(&directory, &[], "exec bash"));
    }
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    lab.run(&script(&directory, &[], &format!("exec {}", words.join(" "))), |_line| {})
}

impl Lab {
    /// Prepares the machine; the error says why that is impossible here.
    pub(crate) fn prepare() -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("the lab runs on x86_64 only; this is {}", std::env::consts::ARCH);
        }
        if crate::machines::find("apt-get").is_none() || crate::machines::find("dpkg-deb").is_none() {
            bail!("the lab's kernel is Debian's, and there is no apt-get and dpkg-deb here");
        }
        crate::machines::install(&PROGRAMS, &[])?;
        let memory_mib = (available_mib()? / 2).min(MEMORY_MIB);
        if memory_mib < MIN_MEMORY_MIB {
            bail!("half of the available memory is {memory_mib} MiB, and the lab needs {MIN_MEMORY_MIB}");
        }
        let dir = target_dir()?.join("lab");
        std::fs::create_dir_all(&dir)?;
        let kernel = kernel::get(&dir)?;
        let busybox = crate::machines::find("busybox").context("busybox is not there")?;
        Ok(Self { dir, kernel, busybox, memory_mib })
    }

    /// Runs a script as root in the machine's root, passes each line to a function, returns its exit code.
    pub(crate) fn run(&self, script: &str, mut look: impl FnMut(&str)) -> Result<u8> {
        for run in 1..=RUNS {
            match self.boot(script, false, |machine| run_watching(machine.stdin(Stdio::null()), &mut look))? {
                Ended::Code(code) => return Ok(code),
                Ended::Early { console } => {
                    println!("\nthe lab ended before its command (run {run} of {RUNS}); its console says:\n{console}");
                }
            }
        }
        bail!("the command did not end in {RUNS} runs of the lab")
    }

    /// Runs a script on the terminal.
    fn enter(&self, script: &str) -> Result<u8> {
        match self.boot(script, true, shell::run)? {
            Ended::Code(code) => Ok(code),
            Ended::Early { .. } => bail!("the lab ended before its command"),
        }
    }

    fn boot(&self, script: &str, interactive: bool, run: impl FnOnce(&mut Command) -> Result<()>) -> Result<Ended> {
        let shared = self.dir.join(std::process::id().to_string());
        let out = self.dir.join("out");
        std::fs::create_dir_all(&out)?;
        std::fs::create_dir_all(shared.join("initramfs"))?;
        let result = self.write(&shared, script, interactive).and_then(|initramfs| {
            let ran = run(&mut self.machine(&shared, &out, &initramfs, interactive));
            let status = std::fs::read_to_string(shared.join("status")).ok().and_then(|status| status.trim().parse().ok());
            ran?;
            let console = || std::fs::read_to_string(shared.join("console")).unwrap_or_default();
            Ok(status.map_or_else(|| Ended::Early { console: console() }, Ended::Code))
        });
        std::fs::remove_dir_all(&shared)?;
        result
    }

    /// Writes the files that the machine reads.
    fn write(&self, shared: &Path, script: &str, interactive: bool) -> Result<PathBuf> {
        let places = [
            ("MODULES", self.kernel.modules.display().to_string()),
            ("ROOT", shell::root().display().to_string()),
            ("INTERACTIVE", if interactive { "yes" } else { "" }.to_owned()),
        ];
        let places: String = places.iter().map(|(name, value)| format!("{name}={}\n", quote(value))).collect();
        std::fs::create_dir_all(shared.join("out"))?;
        std::fs::write(shared.join("places"), places)?;
        std::fs::write(shared.join("start"), include_str!("start"))?;
        std::fs::write(shared.join("command"), script)?;
        kernel::initramfs(&self.kernel, &self.busybox, &shared.join("initramfs"))
    }

    /// One processor: with two, which QEMU emulates in a thread each, KVM locked up in one of several runs.
    fn machine(&self, shared: &Path, out: &Path, initramfs: &Path, interactive: bool) -> Command {
        let share = |id: &str, path: &Path, more: &str| {
            let fsdev = format!("local,id={id},path={},security_model=none{more}", path.display());
            ["-fsdev".to_owned(), fsdev, "-device".to_owned(), format!("virtio-9p-pci,fsdev={id},mount_tag={id}")]
        };
        let (console, output) = if interactive {
            ("stdio,id=console,signal=off".to_owned(), "null,id=output")
        } else {
            // Not "stdio", which closes for good when its input ends: the command's output would then never be read.
            (format!("file,id=console,path={}", shared.join("console").display()), "file,id=output,path=/dev/fd/1,append=on")
        };
        // The machine ends with this process.
        let mut command = Command::new("/usr/bin/setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-smp",
            "1",
        ]);
        command.args([
            "-m",
            &format!("{}M", self.memory_mib),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(initramfs).args(["-append", BOOT]);
        command.args(share("root", Path::new("/"), ",readonly=on,multidevs=remap"));
        command.args(share("lab", shared, ""));
        command.args(share("out", out, ""));
        command.args(["-device", "i6300esb", "-action", "watchdog=poweroff"]);
        command.args(["-chardev", &console, "-serial", "chardev:console", "-chardev", output]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=output,name=output"]);
        command
    }
}

/// A script that gives a command the environment of this process, changed by some variables, and a directory.
pub(crate) fn script(directory: &Path, changes: &[(String, String)], command: &str) -> String {
    let mut environment: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    environment.extend(changes.iter().cloned());
    if let Some(binary) = environment.get("NEX_FIRECRACKER").map(PathBuf::from) {
        // A node looks for it on the path.
        let path = environment.get("PATH").cloned().unwrap_or_default();
        let dir = binary.parent().map(|dir| dir.display().to_string()).unwrap_or_default();
        environment.insert("PATH".to_owned(), format!("{dir}:{path}"));
    }
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
    let exports = environment.iter().filter(|(name, _)| is_name(name));
    let exports: String = exports.map(|(name, value)| format!("export {name}={}\n", quote(value))).collect();
    format!("{exports}cd {} || exit 127\n{command}\n", quote(&directory.display().to_string()))
}

/// Whether there is a Firecracker for the lab.
pub(crate) fn has_firecracker() -> bool {
    let named = std::env::var_os("NEX_FIRECRACKER").map(PathBuf::from).filter(|file| file.is_file());
    named.is_some() || crate::machines::find("firecracker").is_some()
}

/// Quotes a word for a shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn available_mib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("the system does not say how much memory is available")? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_every_word() {
        for word in ["", "a b", "it's", "$HOME `x` \"y\" \\"] {
            let said = shell::output(Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))])).unwrap();
            assert_eq!(said, word);
        }
    }
}
