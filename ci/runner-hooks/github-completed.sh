#!/bin/sh
# For every job of a self-hosted runner of GitHub Actions, none of which is edited:
#
#   ACTIONS_RUNNER_HOOK_JOB_COMPLETED=/opt/stagedoor/github-completed.sh
#   STAGEDOOR_GATEWAY=terminal.example.com
#
# in the runner's .env file. It holds each run that was started with "Enable debug
# logging": a hook is not told whether the job failed. Jobs without the permission
# id-token: write have no ID token; for them /etc/stagedoor/token, a program of yours,
# may print a host token. What happens here never changes how the job ends.

[ "${RUNNER_DEBUG:-}" = 1 ] && [ -n "${STAGEDOOR_GATEWAY:-}" ] || exit 0

if [ -z "${ACTIONS_ID_TOKEN_REQUEST_URL:-}${STAGEDOOR_TOKEN:-}" ] && [ -x "${STAGEDOOR_TOKEN_PROGRAM:=/etc/stagedoor/token}" ]; then
  STAGEDOOR_TOKEN=$("$STAGEDOOR_TOKEN_PROGRAM") || exit 0
  export STAGEDOOR_TOKEN
fi
unset STAGEDOOR_TOKEN_PROGRAM

cd "${GITHUB_WORKSPACE:-.}" || exit 0
curl -fsSL "https://$STAGEDOOR_GATEWAY/install" | sh -s -- hold || true
