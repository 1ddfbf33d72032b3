"""What boot_checks runs inside of an emulated board, as root: shell and Python scripts."""

from __future__ import annotations

from boot_machine import Machine

IN_PYTHON = "PYTHONPATH=/usr/lib/edgeai python3 -P -c"
# The slots: which one runs, and the other one's letter and partition.
SLOTS = """set -e
here=$(sed 's/.*edgeai.slot=\\([ab]\\).*/\\1/' /proc/cmdline)
case $here in a) other=b source=/dev/disk/by-partuuid/ed9ea100-02 target=/dev/disk/by-partuuid/ed9ea100-03 ;;
    b) other=a source=/dev/disk/by-partuuid/ed9ea100-03 target=/dev/disk/by-partuuid/ed9ea100-02 ;; esac
"""
BREAK_OTHER = f"{SLOTS}dd if=/dev/zero of=$target bs=64K count=1 conv=fsync status=none"
DAMAGE_OTHER = f"{SLOTS}dd if=/dev/zero of=$target bs=4M count=40 conv=fsync status=none"
COPY_TO_OTHER = f"""{SLOTS}
mount -o remount,rw /boot/firmware
dd if=$source of=$target bs=4M conv=fsync status=none
rm -rf /boot/firmware/$other && cp -r /boot/firmware/$here /boot/firmware/$other
for file in /boot/firmware/$other/cmdline.*; do
    sed -i "s|${{source##*/}}|${{target##*/}}|; s|slot=$here|slot=$other|" $file
done
sync
"""
EMPTY_KERNEL = f"{SLOTS}: >/boot/firmware/$other/vmlinuz; sync"
EMPTY_OWN_KERNEL = f"{SLOTS}mount -o remount,rw /boot/firmware; : >/boot/firmware/$here/vmlinuz; sync"
# The same system, but its server never starts, and it is given a minute to prove itself.
SILENCE_OTHER = f"""{SLOTS}
arguments="systemd.mask=edgeai.service systemd.mask=edgeai.socket systemd.setenv=EDGEAI_HEALTHY_WITHIN=60"
for file in /boot/firmware/$other/cmdline.*; do sed -i "s|edgeai.slot=|$arguments &|" $file; done
sync
"""
# The same system, but it never looks whether it is healthy; the timer that ends such a trial waits a minute and a half.
IGNORE_OTHER = f"""{SLOTS}
drop_in=$(printf '[Timer]\\nOnBootSec=90\\n' | base64)
credential=systemd.unit-dropin.edgeai-trial.timer:$drop_in
arguments="systemd.mask=edgeai-health.service systemd.set_credential_binary=$credential"
for file in /boot/firmware/$other/cmdline.*; do sed -i "s|edgeai.slot=|$arguments &|" $file; done
sync
"""
TRY_OTHER = f"""{IN_PYTHON} '
from edgeai.appliance.boot_partition import writable
from edgeai.appliance.slots import open_slots
with writable():
    slots = open_slots()
    slots.try_once(slots.inactive())'"""
KEEP = """set -e
echo {number} >/data/keep-new
sync /data/keep-new
mv /data/keep-new /data/keep
edgeai keys create cut-{number} >/dev/null
sync
(while :; do dd if=/dev/urandom of=/data/filler bs=1M count=8 conv=fsync; done) >/dev/null 2>&1 &
"""
ACCESS_POINT = """version: 2
wifis: {"wl*": {access-points: {edgeai-test: {password: "long enough", mode: ap}}}}
"""
# A client joins the first of two radios of the kernel's simulator with the second, from a network namespace of its own.
_JOIN = """set -e
modprobe mac80211_hwsim radios=2
try() { for _ in $(seq 90); do "$@" >/dev/null 2>&1 && return; sleep 1; done; echo "in vain: $*"; }
has_address() { ip -4 -o addr show dev wlan0 | grep -q 10.42.0.1; }
try has_address
systemctl stop edgeai-wifi@wlan1
ip netns add client
iw phy "$(cat /sys/class/net/wlan1/phy80211/name)" set netns name client
printf 'network={\nssid=%s\n%s\n}\n' "$name" "$secret" >/tmp/client.conf
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
# The reply goes to everybody, from an address that this side has no route to yet: DHCP clients read it off the wire.
ip netns exec client sh -c 'for way in all wlan1; do echo 0 >/proc/sys/net/ipv4/conf/$way/rp_filter; done'
ip netns exec client python3 /tmp/discover.py
ip netns exec client ip addr add 10.42.0.200/24 dev wlan1
"""
JOIN = f"""name='"edgeai-test"' secret='psk="long enough"'
{_JOIN}
ip netns exec client python3 -c 'import urllib.request as u
print(u.urlopen("http://10.42.0.1/health/live", timeout=60).read().decode())'
"""
# A board that finds no cable and knows no Wi-Fi: somebody joins its access point, and mistypes a password.
_RADIOS = "modules_load=mac80211_hwsim mac80211_hwsim.radios=2"
_EACH_COMMAND_LINE = f"{SLOTS}mount -o remount,rw /boot/firmware; for file in /boot/firmware/$here/cmdline.*; do"
ADD_RADIOS = f'{_EACH_COMMAND_LINE} sed -i "s|edgeai.slot=|{_RADIOS} &|" $file; done; sync'
REMOVE_RADIOS = f'{_EACH_COMMAND_LINE} sed -i "s|{_RADIOS} ||" $file; done; sync'
TOLD_WIFI = "no such place"
TELL_WIFI = f"""
while /usr/libexec/edgeai/cable-plugged; do sleep 1; done
systemctl restart edgeai-wifi@wlan0 edgeai-setup-page
name=$(sed -n 's/^ *ssid=//p' /run/edgeai/wifi.conf) secret=key_mgmt=NONE
{_JOIN}
cat >/tmp/tell.py <<'END'
import re, urllib.parse, urllib.request
page = "http://10.42.0.1:81/"
token = re.search('name="token" value="([^"]+)"', urllib.request.urlopen(page, timeout=60).read().decode())[1]
form = urllib.parse.urlencode({{"token": token, "wifi": "{TOLD_WIFI}", "password": "with a wrong letter"}})
print(urllib.request.urlopen(page, form.encode(), timeout=60).read().decode())
END
ip netns exec client python3 /tmp/tell.py
sync
"""
SETUP_PAGE = """python3 -c 'import urllib.request as u
print(u.urlopen("http://10.42.0.1:81/", timeout=60).read().decode())'
"""
SEND_MODEL = 'cd "$(ls -d /data/edgeai/models/* | head -n1)" && tar -c .'
IMPORT_TWIN = "edgeai import /data/twin.bundle"
ASIDE = "/data/aside"  # where models are while a board has none
FORGET_TWIN = "rm -rf /data/edgeai/models/twin /data/edgeai/incoming"
TRUST_PUBLISHER = "[ -e /data/keys/system/publisher.pub ] || edgeai trust add --system /data/publisher.pub; sync"
UPDATE = "edgeai update /data/system.bundle --allow-downgrade"
STATUS = (
    f"{IN_PYTHON} 'import dataclasses, json; from edgeai.appliance.slots import open_slots;"
    " print(json.dumps(dataclasses.asdict(open_slots().status())))'"
)
# What a program of the board, root's even, may not send: a name look-up, the time, a connection; nor anything that
# leaves the building from the port of multicast DNS, which the server uses as well.
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
for port in (53, 123, 5353):
    with socket.socket(socket.AF_INET, UDP) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(("", 5353))
        try:
            trial.connect(("192.0.2.1", port))
            trial.send(b"x")
            print("sent from 5353 to 192.0.2.1", port)
        except OSError:
            pass
"""


def in_background(command: str, name: str) -> str:
    """A script that starts a command and leaves; `passed` tells whether it said that it was done."""
    done = f"{command} && echo yes >/data/{name} && sync"
    return f"rm -f /data/{name}; sync; setsid sh -c '{done}' >/data/{name}.log 2>&1 </dev/null &"


def passed(machine: Machine, name: str) -> bool:
    """Whether a command that was started in the background said that it was done."""
    return "yes" in machine.run(f"cat /data/{name} 2>/dev/null || true")
