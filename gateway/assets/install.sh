{
  # Fetches the Stagedoor agent for this machine from https://{{.Gateway}}, checks
  # it, and runs it with the arguments:
  #
  #   curl -fsSL https://{{.Gateway}}/install | sh -s -- connect
  #
  # It is put into STAGEDOOR_INSTALL_DIR, and otherwise where the next job finds it,
  # ~/.cache/stagedoor. Without arguments it is not run, and its path is printed.
  # POSIX sh, and all of it one pair of braces: of a script that was cut off, nothing
  # runs.

  file='' part='' found=''

  say() { echo "stagedoor: $*" >&2; }

  # choose finds out which agent is for this machine.
  choose() {
    kernel=$(uname -s) machine=$(uname -m)
    case $kernel in
      Linux) os=linux ;;
      Darwin) os=darwin ;;
      MINGW* | MSYS* | CYGWIN* | Windows_NT) os=windows ;;
      *) os=$kernel ;;
    esac
    case $machine in
      x86_64 | amd64) arch=amd64 ;;
      aarch64 | arm64) arch=arm64 ;;
      *) arch=$machine ;;
    esac
    case $os/$arch in
{{- range .Agents}}
      {{.OS}}/{{.Arch}}) name={{.Name}} sum={{.Sum}} ;;
{{- end}}
      *)
        say "the gateway has no agent for $kernel on $machine"
        return 1
        ;;
    esac
  }

  # place finds a directory for it.
  place() {
    if [ -n "${STAGEDOOR_INSTALL_DIR:-}" ]; then
      dir=$STAGEDOOR_INSTALL_DIR
      mkdir -p "$dir" || return 1
    else
      dir=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
      [ -z "$dir" ] || dir=$dir/stagedoor/$sum
      if ! mkdir -p "$dir" 2>/dev/null || ! [ -w "$dir" ]; then
        dir=$(mktemp -d) || return 1
      fi
    fi
    file=$dir/stagedoor-agent
    [ "$os" != windows ] || file=$file.exe
  }

  # intact tells whether a file is what the gateway has.
  intact() {
    [ -f "$1" ] || return 1
    if command -v sha256sum >/dev/null 2>&1; then
      found=$(sha256sum <"$1")
    elif command -v shasum >/dev/null 2>&1; then
      found=$(shasum -a 256 <"$1")
    elif command -v openssl >/dev/null 2>&1; then
      found=$(openssl dgst -sha256 -r <"$1")
    else
      found='unknown: sha256sum, shasum and openssl are missing'
    fi
    [ "${found%% *}" = "$sum" ]
  }

  # fetch goes on where it was interrupted.
  fetch() {
    if command -v curl >/dev/null 2>&1; then
      curl -fsSL --connect-timeout 20 --speed-limit 1 --speed-time 30 -C - -o "$part" "$1"
    elif command -v wget >/dev/null 2>&1; then
      wget -q -T 30 -c -O "$part" "$1"
    else
      say "neither curl nor wget is here"
      return 1
    fi
  }

  download() {
    part=$dir/.stagedoor-agent.$$
    tries=0
    until fetch "https://{{.Gateway}}/agents/$name" || intact "$part"; do
      tries=$((tries + 1))
      if [ "$tries" -gt 5 ]; then
        say "https://{{.Gateway}}/agents/$name cannot be downloaded"
        return 1
      fi
      sleep "$tries"
    done
    if ! intact "$part"; then
      say "what was downloaded is not what the gateway announced: its SHA-256 is ${found%% -}, expected $sum"
      return 1
    fi
    chmod 755 "$part" && mv -f "$part" "$file"
  }

  prepare() {
    choose && place || return 1
    if ! [ -x "$file" ] || ! intact "$file"; then
      download || {
        rm -f "$part"
        return 1
      }
    fi
    "$file" version >/dev/null || {
      say "$file cannot be run here; is $dir mounted with noexec? STAGEDOOR_INSTALL_DIR chooses another directory"
      return 1
    }
  }

  if prepare; then
    if [ $# -eq 0 ]; then
      echo "$file"
      exit
    fi
    if [ -z "${STAGEDOOR_GATEWAY:-}${STAGEDOOR_GATEWAY_FILE:-}" ]; then
      export STAGEDOOR_GATEWAY='{{.Gateway}}'
    fi
    unset STAGEDOOR_INSTALL_DIR
    exec "$file" "$@"
  fi

  # A command that was to be run is run all the same: it is not what failed.
  if [ "${1:-}" = run ]; then
    while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
    if [ $# -gt 1 ]; then
      shift
      say "running the command without it, so nobody can enter"
      exec "$@"
    fi
  fi
  exit 1
}
