# For every job of a GitLab runner, none of which is edited. In its config.toml:
#
#   [[runners]]
#     environment = ["STAGEDOOR_GATEWAY=terminal.example.com"]
#     pre_build_script = '''
#   (the lines below)
#   '''
#
# The runner puts them before the job's own script, into the same shell. They hold a
# failed job of a pipeline that was started with STAGEDOOR_DEBUG=1 and that has an ID
# token in STAGEDOOR_TOKEN, or whatever else the gateway accepts.
stagedoor_end() {
  [ "$1" -ne 0 ] || return 0
  case ${STAGEDOOR_DEBUG:-} in
    "" | 0 | false) return 0 ;;
  esac
  if command -v curl >/dev/null 2>&1; then
    curl -fsSL "https://$STAGEDOOR_GATEWAY/install"
  else
    wget -qO- "https://$STAGEDOOR_GATEWAY/install"
  fi | sh -s -- hold || true
}
trap 'stagedoor_end "$?"' EXIT
trap 'trap - EXIT; exit 143' TERM
