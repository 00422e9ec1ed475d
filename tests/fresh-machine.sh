#!/usr/bin/env bash
# Proves the README's two commands on a machine that has nothing: a bookworm system made by debootstrap, a clean clone of
# this repository inside it, `./dev tune`, `./dev test`. Takes its mirror and keyring from this host's apt configuration.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/fresh-machine.sh [--dir DIR] [--keep] [--from DIR]

Runs `./dev tune` and `./dev test` of the last commit in a new Debian 12 chroot. Needs root, debootstrap, git,
about 6 GB of disk and a Debian mirror (the one this host's apt uses).

  --dir DIR    put the chroot below DIR, on a real disk (default: $TMPDIR or /var/tmp)
  --keep       leave the chroot behind, and print where it is
  --from DIR   reuse a chroot that --keep left behind; the clone in it is made anew
  --help       this text

exit status: 0 both commands passed, 1 a command failed, 2 the chroot could not be made
END
}

suite=bookworm
directory=${TMPDIR:-/var/tmp}
keep=no
from=
while (($#)); do
  case $1 in
    --dir) directory=${2:?--dir needs a folder}; shift ;;
    --keep) keep=yes ;;
    --from) from=${2:?--from needs a folder}; keep=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

step() { printf '== %s\n' "$*"; }
die() { printf 'fresh-machine: %s\n' "$*" >&2; exit 2; }

# The mount namespace and the process namespace end with this script, and with them every mount and process in the chroot.
if [[ ${FRESH_MACHINE_INSIDE:-} != yes ]]; then
  ((EUID == 0)) || die "needs root, to make a chroot: run it with sudo"
  for tool in debootstrap git unshare apt-get; do
    command -v "$tool" > /dev/null || die "needs $tool: install it with apt-get"
  done
  arguments=(--dir "$directory")
  [[ $keep == yes ]] && arguments+=(--keep)
  [[ -n $from ]] && arguments+=(--from "$from")
  FRESH_MACHINE_INSIDE=yes exec unshare --mount --pid --fork --kill-child -- "$BASH" "$0" "${arguments[@]}"
fi

repository=$(cd "$(dirname "$0")/.." && pwd)
root=
cleanup() {
  [[ -n $root ]] || return 0
  rm -f "$root.log"
  umount --recursive --lazy "$root/proc" "$root/sys" "$root/dev" 2> /dev/null || true
  if [[ $keep == yes ]]; then
    step "kept: $root (again with --from $root)"
  elif grep -q " $root/" /proc/self/mounts; then
    printf 'fresh-machine: %s is still mounted, not deleted\n' "$root" >&2
  else
    rm -rf --one-file-system "$root"
  fi
}
trap cleanup EXIT
trap 'exit 2' INT TERM

# The host's Debian sources of this suite, one a line: URI SUITE COMPONENTS SIGNED-BY TRUSTED.
host_sources() {
  apt-get indextargets --format "\$(REPO_URI)|\$(RELEASE)|\$(COMPONENT)" 'Created-By: Packages' |
    awk -F'|' -v suite="$suite" '
      $2 == suite || $2 == suite "-updates" || $2 == suite "-security" {
        key = $1 " " $2
        if (!(key in components)) order[++count] = key
        if (index(" " components[key] " ", " " $3 " ") == 0) components[key] = components[key] " " $3
      }
      END { for (i = 1; i <= count; i++) print order[i] components[order[i]] }'
}

# The keyring that the host's sources name, or Debian's own.
host_keyring() {
  local named
  named=$(grep -rhoiE 'signed-by *[:=] *[^] ]+' /etc/apt/sources.list /etc/apt/sources.list.d 2> /dev/null |
    grep -i debian | sed -E 's/.*[:=] *//' | head -n 1)
  for keyring in "$named" /usr/share/keyrings/debian-archive-keyring.gpg; do
    if [[ -n $keyring && -r $keyring ]]; then
      printf '%s\n' "$keyring"
      return
    fi
  done
}

host_trusts_unsigned() {
  grep -rqsiE '(\[[^]]*trusted=yes|^trusted: *yes)' /etc/apt/sources.list /etc/apt/sources.list.d
}

# What the host's apt needs to reach its mirror: proxies, certificates, leniency towards old snapshots.
host_acquire_settings() {
  apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|Check-|Max-ValidTime|ForceIPv)' | grep -vE ' "";$' || true
}

make_chroot() {
  local sources mirror keyring options=(--variant=minbase --arch=amd64)
  sources=$(host_sources)
  mirror=$(awk -v suite="$suite" '$2 == suite { print $1; exit }' <<< "$sources")
  [[ -n $mirror ]] || die "this host's apt has no source for Debian $suite (after apt-get update): add one"
  keyring=$(host_keyring)
  if [[ -n $keyring ]]; then
    options+=(--keyring="$keyring")
  elif host_trusts_unsigned; then
    options+=(--no-check-gpg)  # as the host itself does
  else
    die "no keyring: install debian-archive-keyring"
  fi
  [[ $mirror == https:* ]] && options+=(--include=ca-certificates)

  step "debootstrap $suite from $mirror"
  debootstrap "${options[@]}" "$suite" "$root" "$mirror" > "$root.log" 2>&1 ||
    { tail -n 20 "$root.log" >&2; die "debootstrap failed"; }

  local signed=
  [[ -z $keyring ]] && signed='[trusted=yes] '
  if [[ -n $keyring && $keyring != /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
    install -D -m 644 "$keyring" "$root$keyring"
    signed="[signed-by=$keyring] "
  fi
  awk -v signed="$signed" '{ print "deb " signed $0 }' <<< "$sources" > "$root/etc/apt/sources.list"
  host_acquire_settings > "$root/etc/apt/apt.conf.d/90host"
  printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"  # no services in here
  chmod +x "$root/usr/sbin/policy-rc.d"
  copy_certificates
}

# A site's own certificate authorities, where https passes through its proxy.
copy_certificates() {
  if compgen -G '/usr/local/share/ca-certificates/*.crt' > /dev/null; then
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
  fi
  if [[ -r /etc/ssl/certs/ca-certificates.crt && ! -e $root/etc/ssl/certs/ca-certificates.crt ]]; then
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  fi
}

mount_chroot() {
  cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
  mount -t proc proc "$root/proc"
  mount --rbind --make-rslave /sys "$root/sys"
  mount --rbind --make-rslave /dev "$root/dev"
}

clone() {
  [[ -z $(git -C "$repository" status --porcelain) ]] ||
    step "note: uncommitted changes are not part of this run"
  rm -rf "$root/srv/glaive"
  git -c safe.directory='*' clone --quiet --no-hardlinks "$repository" "$root/srv/glaive"
  step "clone of $(git -C "$root/srv/glaive" log -1 --format='%h %s')"
}

# A command in the clone, with no terminal and nothing of the host's environment but its proxies.
inside() {
  local environment=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8) name
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [[ -n ${!name:-} ]] && environment+=("$name=${!name}")
  done
  # shellcheck disable=SC2016  # expanded inside
  env -i "${environment[@]}" chroot "$root" /bin/bash -c 'cd /srv/glaive && "$@"' bash "$@" < /dev/null
}

failures=0
check() {
  local begin=$SECONDS status=0
  step "$*"
  inside "$@" || status=$?
  if ((status == 0)); then
    step "passed: $* ($((SECONDS - begin)) s)"
  else
    step "FAILED with status $status: $* ($((SECONDS - begin)) s)"
    failures=$((failures + 1))
  fi
}

main() {
  if [[ -n $from ]]; then
    [[ -x $from/bin/bash ]] || die "$from holds no chroot"
    root=$(cd "$from" && pwd)
  else
    mkdir -p "$directory"
    root=$(mktemp -d "$(cd "$directory" && pwd)/glaive-fresh.XXXXXX")
    chmod 755 "$root"
    make_chroot
  fi
  mount_chroot
  clone
  step "chroot ready ($SECONDS s, $(inside bash -c 'dpkg-query -f . -W | wc -c') packages)"

  check ./dev tune
  check ./dev test

  step "$(du -sh --one-file-system "$root" | cut -f1) of disk, $((SECONDS / 60)) min $((SECONDS % 60)) s in all"
  ((failures == 0)) || { step "FAILED: $failures of 2 commands"; exit 1; }
  step "both commands pass on a fresh Debian 12"
}

main
