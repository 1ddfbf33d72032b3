"""What boot_checks runs inside of an emulated board, as root: shell and Python scripts."""

from __future__ import annotations

BREAK_B = "dd if=/dev/zero of=/dev/disk/by-partuuid/ed9ea100-03 bs=64K count=1 conv=fsync status=none"
COPY_TO_B = """set -e
mount -o remount,rw /boot/firmware
dd if=/dev/disk/by-partuuid/ed9ea100-02 of=/dev/disk/by-partuuid/ed9ea100-03 bs=4M conv=fsync status=none
rm -rf /boot/firmware/b && cp -r /boot/firmware/a /boot/firmware/b
for file in /boot/firmware/b/cmdline.*; do sed -i "s|ed9ea100-02|ed9ea100-03|; s|slot=a|slot=b|" $file; done
sync
"""
KEEP = """set -e
echo {number} >/data/keep-new
sync /data/keep-new
mv /data/keep-new /data/keep
sync
(while :; do dd if=/dev/urandom of=/data/filler bs=1M count=8 conv=fsync; done) >/dev/null 2>&1 &
"""
ACCESS_POINT = """version: 2
wifis: {"wl*": {access-points: {edgeai-test: {password: "long enough", mode: ap}}}}
"""
# Two radios of the kernel's simulator; the second one joins, from a network namespace of its own.
JOIN = """set -e
modprobe mac80211_hwsim radios=2
try() { for _ in $(seq 90); do "$@" >/dev/null 2>&1 && return; sleep 1; done; echo "in vain: $*"; }
has_address() { ip -4 -o addr show dev wlan0 | grep -q 10.42.0.1; }
try has_address
systemctl stop edgeai-wifi@wlan1
ip netns add client
iw phy "$(cat /sys/class/net/wlan1/phy80211/name)" set netns name client
printf 'network={\nssid="edgeai-test"\npsk="long enough"\n}\n' >/tmp/client.conf
ip netns exec client wpa_supplicant -B -i wlan1 -c /tmp/client.conf >/dev/null
joined() { ip netns exec client iw dev wlan1 link | grep -q Connected; }
try joined
cat >/tmp/discover.py <<'END'
import secrets, socket
number = secrets.token_bytes(4)
head = bytes([1, 1, 6, 0]) + number + bytes([0, 0, 0x80, 0]) + bytes(16)
request = head + bytes.fromhex("020000000100") + bytes(202) + bytes([99, 130, 83, 99, 53, 1, 1, 255])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wlan1")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    client.bind(("", 68))
    client.settimeout(5)
    for _ in range(10):
        client.sendto(request, ("255.255.255.255", 67))
        try:
            answer = client.recv(2000)
        except TimeoutError:
            continue
        if answer[4:8] == number:
            print("offered", socket.inet_ntoa(answer[16:20]))
            break
END
ip netns exec client python3 /tmp/discover.py
ip netns exec client ip addr add 10.42.0.200/24 dev wlan1
ip netns exec client python3 -c 'import urllib.request as u
print(u.urlopen("http://10.42.0.1/health/live", timeout=60).read().decode())'
"""
EXPORT = """set -e
export EDGEAI_HOME=/data/edgeai
edgeai trust make-key /data/system/test-key
edgeai trust add /data/system/test-key.pub
edgeai export "$(ls /data/edgeai/models | head -n1)" /data/model.bundle --sign-with /data/system/test-key
sync
"""
IN_PYTHON = "PYTHONPATH=/usr/lib/edgeai python3 -P -c"
TRY_B = f"""{IN_PYTHON} '
from edgeai.appliance.boot_partition import writable
from edgeai.appliance.slots import open_slots
with writable():
    open_slots().try_once("b")'"""
STATUS = (
    f"{IN_PYTHON} 'import dataclasses, json; from edgeai.appliance.slots import open_slots;"
    " print(json.dumps(dataclasses.asdict(open_slots().status())))'"
)
# What a program of the board, root's even, may not send: a name look-up, the time, a connection.
ATTEMPTS = """
import socket
UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
for kind, port in ((UDP, 53), (UDP, 123), (TCP, 53), (TCP, 80), (TCP, 443)):
    for address in ("10.0.2.2", "10.0.2.3", "192.0.2.1"):
        with socket.socket(socket.AF_INET, kind) as trial:
            trial.settimeout(2)
            try:
                trial.connect((address, port))
                trial.send(b"x")
                print("sent to", address, port)
            except OSError:
                pass
"""
