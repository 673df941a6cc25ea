#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing, and starts none of their services.
#
#   install-system-packages.sh venv     what `python3 -m venv` needs
#   install-system-packages.sh tests    the real components that the tests start themselves
#
# Where it cannot (no apt, no root), `tests` says so and ends well: the tests that need a component then say
# that it is missing, and are skipped, except with CI=true, where they fail.
set -euo pipefail
purpose=${1:?venv or tests}

missing=()
has() { command -v "$1" >/dev/null 2>&1 || [[ -x /usr/sbin/$1 ]]; }
if [[ $purpose == venv ]]; then
  missing+=(python3-venv)
else
  has java || missing+=(default-jre-headless)   # Apache Kafka in KRaft mode
  has mvn || missing+=(maven)                   # fetches Kafka's jars
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || has postgres || missing+=(postgresql)
  { has prometheus && has promtool; } || missing+=(prometheus)
  { has prometheus-alertmanager || has alertmanager; } || missing+=(prometheus-alertmanager)
  { has node && has npm; } || missing+=(nodejs npm)   # Grafana's schema of dashboards, checked by tsc
  # Ubuntu's chromium is a snap, which containers cannot run: taken where it is a real package.
  if ! has chromium && ! has chromium-browser && ! grep -qi '^ID=ubuntu' /etc/os-release 2>/dev/null; then
    missing+=(chromium)
  fi
fi
[[ ${#missing[@]} -gt 0 ]] || exit 0

give_up() {
  echo "segwatch: $1; please install: ${missing[*]}" >&2
  [[ $purpose == tests ]] && exit 0
  exit 2
}
has apt-get || give_up "this is neither Debian nor Ubuntu"
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if has sudo && sudo -n true 2>/dev/null; then as_root=(sudo -n); else give_up "no right to install packages"; fi
fi

# Debian starts a package's service on installation unless policy-rc.d says 101. The tests run servers of
# their own on free ports and want none beside them. A policy that is already there is somebody's choice: kept.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi

echo "segwatch: installing ${missing[*]}" >&2
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null; }
apt update || echo "segwatch: apt-get update failed, trying with the lists that are there" >&2
apt install -y --no-install-recommends "${missing[@]}" || give_up "apt-get could not install them"
