#!/usr/bin/env bash
# Brings what is missing on a fresh machine. Each part returns within a moment when there is nothing to do.
#
#   compose/bootstrap.sh venv         .venv with everything that requirements.lock names
#   compose/bootstrap.sh kafka        Java, and the jars of a real Kafka broker in .cache/kafka/libs
#   compose/bootstrap.sh kcat         the foreign Kafka client of the integration tests
#   compose/bootstrap.sh redis        a Redis server for the integration tests
#   compose/bootstrap.sh python       prints the interpreter that would make .venv
#   compose/bootstrap.sh constraints  prints the locked versions, for an installation without the development tools
#
# System packages are installed only as root on Debian and its kin, and never in silence; elsewhere the command that
# brings them is named. PYTHON chooses the interpreter of a new .venv, UV_TORCH_BACKEND (say, cpu) the build of torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=.venv
readonly libs=.cache/kafka/libs
readonly java_major_min=17

# uv takes an empty choice for a wrong one.
[[ -n ${UV_TORCH_BACKEND:-} ]] || unset UV_TORCH_BACKEND

say() { printf '%s\n' "bootstrap: $*" >&2; }

fail() {
  say "$*"
  exit 1
}

# require WHAT CHECK APT BREW DNF: passes when CHECK does, installs the Debian packages where it may, else names the command.
require() {
  local what=$1 check=$2 apt=$3 brew=$4 dnf=$5
  if "$check"; then return; fi
  if command -v apt-get >/dev/null; then
    [[ $(id -u) == 0 ]] || fail "$what is missing; install it with: sudo apt-get update && sudo apt-get install -y $apt"
    say "$what is missing; installing the packages: $apt"
    apt_install "$apt"
  elif command -v brew >/dev/null; then
    fail "$what is missing; install it with: brew install $brew"
  elif command -v dnf >/dev/null; then
    fail "$what is missing; install it with: sudo dnf install -y $dnf"
  else
    fail "$what is missing; install it and put it on PATH (Debian calls it: $apt)"
  fi
  "$check" || fail "$what is still missing after installing $apt: this system is too old to have it, install it by hand"
}

apt_install() {
  local packages
  read -ra packages <<<"$1"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq </dev/null >/dev/null
  apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${packages[@]}" </dev/null >/dev/null
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints the first interpreter that is recent enough. A version manager may have shims on PATH that run nothing.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && is_recent "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

has_python() { find_python >/dev/null; }

require_python() { require "Python 3.11 or later" has_python "python3" "python@3.12" "python3.12"; }

has_venv_module() { "$(find_python)" -c 'import ensurepip, venv' 2>/dev/null; }

java_major() {
  local java=java
  if [[ -n ${JAVA_HOME:-} ]]; then java=$JAVA_HOME/bin/java; fi
  "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'
}

has_java() {
  local major
  major=$(java_major) || return 1
  [[ -n $major && $major -ge $java_major_min ]]
}

has_maven() { command -v mvn >/dev/null; }

has_kcat() { command -v kcat >/dev/null; }

has_redis() { command -v redis-server >/dev/null; }

# What the environment was made from: when it changes, the environment is brought up to date.
venv_fingerprint() {
  cat requirements.lock pyproject.toml compose/bootstrap.lock | cksum
  printf '%s\n' "torch backend: ${UV_TORCH_BACKEND:-as locked}"
}

bring_venv() {
  local fingerprint
  fingerprint=$(venv_fingerprint)
  if is_recent "$venv/bin/python" && [[ $(cat "$venv/.installed" 2>/dev/null) == "$fingerprint" ]]; then return; fi
  if ! is_recent "$venv/bin/python"; then
    require_python
    require "Python's venv module" has_venv_module "python3-venv" "python@3.12" "python3.12"
    say "making $venv with $(find_python)"
    "$(find_python)" -m venv --clear "$venv"
  fi
  say "installing what requirements.lock names (gigabytes the first time: torch)"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r compose/bootstrap.lock
  install_requirements
  uv_install --no-deps --no-build-isolation -e .
  printf '%s\n' "$fingerprint" >"$venv/.installed"
}

uv_install() { "$venv/bin/uv" pip install -q --python "$venv/bin/python" "$@"; }

# The locked versions as constraints. Another build of torch has other hashes (and needs fewer packages): its own are
# then left out, and those of everything else still hold.
constraints() {
  if [[ -z ${UV_TORCH_BACKEND:-} ]]; then
    cat requirements.lock
    return
  fi
  say "torch comes as the '$UV_TORCH_BACKEND' build, whose hashes requirements.lock does not know"
  awk '/^[^ #]/ { torch = /^torch==/; if (torch) sub(/ \\$/, "") } !(torch && /--hash=/)' requirements.lock
}

install_requirements() {
  if [[ -z ${UV_TORCH_BACKEND:-} ]]; then
    uv_install --require-hashes -r requirements.lock
    return
  fi
  constraints >"$venv/constraints.txt"
  uv_install -r pyproject.toml --group dev -c "$venv/constraints.txt"
}

bring_kafka() {
  require "Java $java_major_min or later" has_java "default-jre-headless" "openjdk" "java-21-openjdk-headless"
  if cmp -s compose/kafka/pom.xml "$libs/pom.xml"; then return; fi
  require "Maven" has_maven "maven" "maven" "maven"
  say "fetching Kafka's jars"
  rm -rf "$libs.part"
  mvn -B -q -C -Dstyle.color=never -f compose/kafka/pom.xml "-Dlibs.dir=$PWD/$libs.part" dependency:copy-dependencies </dev/null >&2
  cp compose/kafka/pom.xml "$libs.part/pom.xml"
  rm -rf "$libs"
  mv "$libs.part" "$libs"
}

bring_kcat() { require "kcat" has_kcat "kcat" "kcat" "kcat"; }

# Debian's own package starts a server as it is installed; the tests start their own.
bring_redis() { require "Redis" has_redis "redis-server" "redis" "redis"; }

[[ $# -gt 0 ]] || fail "say what to bring: venv, kafka, kcat, redis, python or constraints"
for part in "$@"; do
  case $part in
    venv) bring_venv ;;
    kafka) bring_kafka ;;
    kcat) bring_kcat ;;
    redis) bring_redis ;;
    python)
      require_python
      find_python
      ;;
    constraints) constraints ;;
    *) fail "there is no '$part'; say venv, kafka, kcat, redis, python or constraints" ;;
  esac
done
