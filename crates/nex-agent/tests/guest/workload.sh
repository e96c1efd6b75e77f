#!/bin/sh
# Says what a workload finds in its guest, and tries what it must not be able to do.
for tool in id cat date hostname mount umount dd kill reboot poweroff sleep grep awk touch ls mknod chroot su insmod ps wc; do
  eval "$tool() { /bin/busybox $tool \"\$@\"; }"
done
echo "uid $(id -u)"
echo "hostname $(hostname)"
echo "year $(date -u +%Y)"
echo "mac $(cat /sys/class/net/eth0/address)"
echo "mtu $(cat /sys/class/net/eth0/mtu)"
echo "resolv $(cat /etc/resolv.conf 2>/dev/null || echo none)"
echo "hosts $(grep host.nex.internal /etc/hosts)"
echo "oom $(cat /proc/self/oom_score_adj)"
echo "caps $(awk '/^CapBnd|^NoNewPrivs|^Seccomp:/ { printf "%s%s", sep, $2; sep = " " }' /proc/self/status)"
for place in /work /tmp /dev/shm; do
  touch $place/probe && echo "writable $place"
done

must_fail() {
  what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "ESCAPED $what"; else echo "held $what"; fi
}
b=/bin/busybox
must_fail 'become root' $b su -c true
must_fail 'mount memory' $b mount -t tmpfs none /tmp
must_fail 'mount the artifact again' $b mount -o remount,rw /artifact
must_fail 'unmount the artifact' $b umount /artifact
must_fail 'write the artifact' $b touch /artifact/artifact
must_fail 'write the root' $b touch /here
must_fail 'write the agent' $b touch /nex-agent
must_fail 'read the root drive' $b dd if=/dev/vda of=/dev/null bs=512 count=1
must_fail 'read the artifact drive' $b dd if=/dev/vdb of=/dev/null bs=512 count=1
must_fail 'read memory' $b dd if=/dev/mem of=/dev/null bs=1 count=1
must_fail 'speak as the init' $b dd if=/dev/null of=/dev/vport0p1
must_fail 'make a device' $b mknod /tmp/vda b 254 0
must_fail 'signal the init' $b kill -KILL 1
must_fail 'see the init' $b ls /proc/1
must_fail 'restart the machine' $b reboot -f
must_fail 'press a key' $b sh -c 'echo b > /proc/sysrq-trigger'
must_fail 'unbind a driver' $b sh -c 'echo virtio0 > /sys/bus/virtio/drivers/virtio_blk/unbind'
must_fail 'change the root' $b chroot / /bin/busybox true

# Orphans become the init's: none of them stays behind when it ends.
for _ in 1 2 3 4; do ($b setsid $b sleep 0.1 &); done
$b sleep 1
echo "orphans $($b ps -o stat,args | $b grep -c '^Z')"
echo "seen $($b ls /proc | $b grep -c '^[0-9]')"
echo "available $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)"
exit 7
