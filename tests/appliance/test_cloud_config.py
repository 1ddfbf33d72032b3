"""What Raspberry Pi Imager and people write onto the boot partition."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.appliance import network_files
from edgeai.appliance.cloud_config import BoardSettings, Interface, WifiNetwork, checked_wifi, read_folder
from edgeai.appliance.first_boot import copy_server_settings, write_settings
from edgeai.errors import InvalidInput

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8cX amina@clinic"
# As Imager 2 writes it, with a name, a password, a key, a time zone and a keyboard chosen.
USER_DATA = f"""#cloud-config
hostname: clinic
manage_etc_hosts: true
packages:
- avahi-daemon
timezone: Africa/Nairobi
keyboard:
  model: pc105
  layout: "ke"
users:
- name: amina
  groups: users,adm,sudo
  shell: /bin/bash
  lock_passwd: false
  passwd: $5$abc$def
  ssh_authorized_keys:
    - {KEY}
  sudo: ALL=(ALL) NOPASSWD:ALL
ssh_pwauth: false
runcmd:
  - [ rfkill, unblock, wifi ]
"""
NETWORK_CONFIG = """version: 2
wifis:
  renderer: networkd
  wlan0:
    dhcp4: true
    regulatory-domain: "KE"
    access-points:
      "Clinic: upstairs":
        password: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        hidden: true
    optional: true
"""


def folder_with(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_", "-")).write_text(text)
    return folder


def test_what_imager_writes_is_understood(tmp_path: Path) -> None:
    settings = read_folder(folder_with(tmp_path, user_data=USER_DATA, network_config=NETWORK_CONFIG, meta_data=""))
    assert (settings.hostname, settings.timezone, settings.country) == ("clinic", "Africa/Nairobi", "KE")
    assert settings.ssh_keys == (KEY,)
    assert settings.wifi == (WifiNetwork("Clinic: upstairs", "0123456789abcdef" * 4, hidden=True),)
    assert settings.interfaces == (Interface("wlan0"),)
    assert settings.notes == (
        "user-data: packages has no effect here",
        "user-data: runcmd has no effect here",
        "user-data: passwords have no effect, nobody can log in by one",
    )


def test_nothing_written_is_nothing_asked_for(tmp_path: Path) -> None:
    assert read_folder(tmp_path) == BoardSettings()


def test_fixed_addresses_and_a_wrapped_document(tmp_path: Path) -> None:
    text = "network: {ethernets: {eth0: {addresses: [192.168.1.5/24], routes: [{to: default, via: 192.168.1.1}]}}}"
    settings = read_folder(folder_with(tmp_path, network_config=text, meta_data="local-hostname: school\n"))
    assert settings.interfaces == (Interface("eth0", dhcp=False, addresses=("192.168.1.5/24",), gateway="192.168.1.1"),)
    assert settings.hostname == "school"


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("user-data", "hostname: [", "user-data cannot be read"),
        ("user-data", "[" * 5000, "user-data cannot be read"),
        ("user-data", 'hostname: "\\ud800"', "user-data cannot be read"),
        ("user-data", "users: &all [*all]", "user-data cannot be read"),
        ("network-config", "wifis: {wlan0: {access-points: {Home: {password: [a, list]}}}}", "has to be text"),
        ("user-data", "just words", "user-data is not made of names with values"),
        ("user-data", "ntp: {servers: [pool.ntp.org, 192.168.1.1]}", "time server pool.ntp.org has to be an address"),
        ("user-data", "ssh_authorized_keys: [secret]", "'secret' is not an SSH key"),
        ("network-config", "wifis: {wlan0: {access-points: {Home: {password: short}}}}", "has not 8 to 63 plain"),
        ("network-config", f"wifis: {{wlan0: {{access-points: {{{'x' * 33}: {{}}}}}}}}", "has not 1 to 32 bytes"),
    ],
)
def test_mistakes_are_noted_and_the_rest_holds(tmp_path: Path, name: str, text: str, note: str) -> None:
    (tmp_path / name).write_text(text)
    notes = read_folder(tmp_path).notes
    assert len(notes) == 1
    assert note in notes[0]


NAMES = ("users", "ntp", "servers", "wifis", "wlan0", "access-points", "x")
yaml_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "password", ["2020-31-12", "012345670", "12:30:45:00", "0x1234567", "1_000_000", "=long=enough="]
)
def test_a_password_is_what_was_typed(tmp_path: Path, password: str) -> None:
    text = f"wifis: {{wlan0: {{access-points: {{2024-01-01: {{password: {password}, hidden: Yes}}}}}}}}"
    settings = read_folder(folder_with(tmp_path, network_config=text))
    assert settings.wifi == (WifiNetwork("2024-01-01", password, hidden=True),)
    assert settings.notes == ()


@pytest.mark.parametrize(("said", "dhcp"), [("no", False), ("true", True), ("off", False), ("", True), ("~", True)])
def test_yes_and_no_have_many_names(tmp_path: Path, said: str, dhcp: bool) -> None:
    settings = read_folder(folder_with(tmp_path, network_config=f"ethernets: {{eth0: {{dhcp4: {said}}}}}"))
    assert settings.interfaces == (Interface("eth0", dhcp=dhcp),)


def test_nothing_is_said_in_many_ways(tmp_path: Path) -> None:
    text = "hostname: ~\ntimezone:\nssh_authorized_keys: null\nntp: {servers: }\nusers: [{passwd: ''}]\n"
    assert read_folder(folder_with(tmp_path, user_data=text)) == BoardSettings()


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_file_is_survived(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = folder_with(tmp_path_factory.mktemp("boot"), user_data=text, network_config=f"wifis: {{w: {text}}}")
    write_settings(read_folder(folder), folder / "run", folder / "networks")


@given(yaml_like)
def test_any_document_is_survived(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    import yaml

    folder = tmp_path_factory.mktemp("boot")
    for name in ("user-data", "network-config", "meta-data"):
        (folder / name).write_text(yaml.safe_dump(document))
    settings = read_folder(folder)
    network_files.wifi_config(settings.wifi, settings.country)


def test_wifi_files_hold_any_name() -> None:
    text = network_files.wifi_config([WifiNetwork('a"\nb', "it's secret"), WifiNetwork("open")], "KE")
    assert "ssid=61220a62\n" in text
    assert 'psk="it\'s secret"\n' in text
    assert "country=KE\n" in text
    assert text.count("key_mgmt=NONE") == 1


def test_a_hashed_key_is_not_tried_with_sae() -> None:
    hashed = network_files.wifi_config([WifiNetwork("Clinic", "0123456789abcdef" * 4)], None)
    assert "key_mgmt=WPA-PSK WPA-PSK-SHA256\n" in hashed
    assert "SAE" in network_files.wifi_config([WifiNetwork("Clinic", "long enough")], None)


@pytest.mark.parametrize("secret", ["1234567", "x" * 64, "line\nbreak", "ключключ"])
def test_passwords_that_no_network_has_are_refused(secret: str) -> None:
    with pytest.raises(InvalidInput):
        checked_wifi("Home", secret, {})


def test_without_a_known_network_there_is_an_access_point(tmp_path: Path) -> None:
    write_settings(BoardSettings(), tmp_path / "run", tmp_path / "networks")
    assert "mode=2" in (tmp_path / "run" / "wifi.conf").read_text()
    assert "DHCPServer=yes" in (tmp_path / "networks" / "70-edgeai-access-point.network").read_text()
    opened = ["add element inet edgeai udp_in { 67 }", "add element inet edgeai tcp_in { 81 }"]
    assert (tmp_path / "run" / "open.nft").read_text().splitlines() == opened
    assert (tmp_path / "run" / "set-up-wanted").exists()
    assert not (tmp_path / "run" / "authorized_keys").exists()


def test_ports_are_opened_for_what_was_asked_for(tmp_path: Path) -> None:
    zones = tmp_path / "zones"
    (zones / "Africa").mkdir(parents=True)
    (zones / "Africa" / "Nairobi").write_bytes(b"TZif")
    wifi = (WifiNetwork("Home", "long enough"),)
    settings = BoardSettings(timezone="Africa/Nairobi", ssh_keys=(KEY,), ntp=("192.168.1.1",), wifi=wifi)
    write_settings(settings, tmp_path / "run", tmp_path / "networks", zones)
    run = tmp_path / "run"
    opened = ["add element inet edgeai tcp_in { 22 }", "add element inet edgeai udp_out { 123 }"]
    assert (run / "open.nft").read_text().splitlines() == opened
    assert (run / "authorized_keys").read_text() == f"{KEY}\n"
    assert (run / "localtime").readlink() == zones / "Africa" / "Nairobi"
    assert (run / "wifi.conf").stat().st_mode & 0o777 == 0o600
    notes = write_settings(BoardSettings(timezone="../../etc/passwd"), run, tmp_path / "networks", zones)
    assert notes == ["there is no time zone ../../etc/passwd"]


def test_server_settings_are_copied_unless_they_are_not_toml(tmp_path: Path) -> None:
    boot, run = tmp_path / "boot", tmp_path / "run"
    boot.mkdir()
    assert copy_server_settings(boot, run) == []
    (boot / "edgeai.toml").write_text('\ufeffname = "clinic"\n', encoding="utf-8")
    assert copy_server_settings(boot, run) == []
    assert (run / "edgeai.toml").read_text() == 'name = "clinic"\n'
    (boot / "edgeai.toml").write_text("name = clinic")
    assert "edgeai.toml has no effect, it is not TOML" in copy_server_settings(boot, run)[0]


def test_the_files_of_a_new_image_ask_for_nothing() -> None:
    people = Path(__file__).parents[2] / "images" / "boot" / "people"
    assert read_folder(people) == BoardSettings()
    lines = (people / "user-data").read_text().splitlines()
    assert lines[0] == "#cloud-config"
