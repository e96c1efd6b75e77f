# Says what a workload finds in its guest, and tries what it must not be able to do.
# Told: USER_PORT and BUS_PORT of the host's two NATS servers, HOST_PORT and METADATA_PORT of other servers there, OTHER: another guest,
# STATE: the node's directory on the host.
trap 'echo last words; exit 0' TERM
trap '' INT
name=$($b hostname)
own=$($b awk -v name="$name" '$2 == name { print $1 }' /etc/hosts)
gateway=$($b awk '$2 == "host.nex.internal" { print $1 }' /etc/hosts)
while :; do echo reached | $b nc -l -p 7000; done >/dev/null 2>&1 &

echo "hostname $name"
echo "ip $own"
echo "gateway $gateway"
echo "mac $($b cat /sys/class/net/eth0/address)"
echo "uid $($b id -u)"
echo "kernel $($b cat /proc/version)"
echo "boot $($b cat /proc/sys/kernel/random/boot_id)"
echo "uuid $($b cat /proc/sys/kernel/random/uuid)"
echo "bytes $($b head -c 16 /dev/urandom | $b od -An -tx1 | $b tr -d ' \n')"
echo "cpus $($b nproc)"
echo "memory $($b awk '/^MemTotal/ { print $2 }' /proc/meminfo)"
echo "resolvers $($b cat /etc/resolv.conf 2>/dev/null | $b wc -l)"
echo "secret ${SECRET:-none}"

try() {
  what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "could $what"; else echo "could not $what"; fi
}
# A word from whoever listens there, within so many seconds.
reach() {
  said=$($b timeout "$4" $b nc -w "$4" "$2" "$3" </dev/null 2>/dev/null | $b head -c 4)
  if [ -n "$said" ]; then echo "reached $1: $said"; else echo "did not reach $1"; fi
}

try 'read its own environment' $b cat /proc/$$/environ
try 'open its own memory' $b sh -c "exec 3</proc/$$/mem"
try 'write where it works' $b sh -c 'cd /work && touch x'
for process in 1 $PPID; do
  try "read the environment of $process" $b cat /proc/$process/environ
  try "list the files of $process" $b ls /proc/$process/fd/
  try "open the memory of $process" $b sh -c "exec 3</proc/$process/mem"
done
try 'become root' $b su -c true
try 'mount' $b mount -t tmpfs none /tmp
try 'load a module' $b insmod /bin/busybox
try 'reboot' $b reboot -f
try 'press a key' $b sh -c 'echo b > /proc/sysrq-trigger'
try 'read the root drive' $b dd if=/dev/vda of=/dev/null bs=512 count=1
try 'write the root drive' $b dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=notrunc
try 'write the artifact' $b touch /artifact/artifact
try 'speak as the init' $b sh -c 'exec 3>/dev/vport0p1'
try 'see the files of the host' $b ls "$STATE"

reach itself "$own" 7000 30
reach 'the NATS of the user' host.nex.internal "$USER_PORT" 30
said=$(printf 'CONNECT {"verbose":true}\r\nSUB > 1\r\nPING\r\n' | $b timeout 10 $b nc -w 10 "$gateway" "$BUS_PORT" | $b head -n 1)
echo "bus ${said:-silent}"
# A metadata service of version 2 gives a token first.
mmds() { printf "$1 HTTP/1.1\r\nHost: 169.254.169.254\r\nAccept: application/json\r\n$2\r\n" | $b timeout 5 $b nc -w 5 169.254.169.254 80 | $b tail -n 1; }
token=$(mmds 'PUT /latest/api/token' 'X-metadata-token-ttl-seconds: 60\r\n')
echo "metadata $([ -n "$token" ] && mmds 'GET /' "X-metadata-token: $token\\r\\n" || echo none)"
# Nobody says no: each of these waits for its whole time, so they do it together.
waits=
together() {
  "$@" &
  waits="$waits $!"
}
together reach 'another port of the host' "$gateway" "$HOST_PORT" 3
together reach 'the metadata address' 169.254.169.254 "$METADATA_PORT" 3
together reach 'the NATS of the user elsewhere' 169.254.169.254 "$USER_PORT" 3
together reach 'another guest' "$OTHER" 7000 3
together try 'resolve a name' $b timeout 3 $b nslookup example.com
wait $waits
echo done
while :; do $b sleep 1 & wait $!; done
