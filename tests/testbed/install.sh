#!/usr/bin/env bash
# The real parts that tests need beyond Python, from Debian's packages: a C compiler, git, the tool that unpacks
# a Debian into a folder, a container engine, an image registry, and a shell for the smallest images.
# Installs what is missing where that is possible; starts nothing.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
missing=()
need() { command -v "$1" >/dev/null || missing+=("${@:2}"); }
need gcc gcc libc6-dev
need git git
need mmdebstrap mmdebstrap
need dockerd docker.io
need docker-registry docker-registry
need podman podman catatonit
need ip iproute2
need iptables iptables
need mkfs.ext4 e2fsprogs
need sshd openssh-server
need ssh-keygen openssh-client
# A busybox that needs libraries is of no use in an image that has none.
if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then missing+=(busybox-static); fi
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests that need ${missing[*]} will be skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# Debian's way to say that packages may not start their services; a machine's own such file is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
apt-get -qq update
apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null
