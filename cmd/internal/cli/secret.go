package cli

import (
	"regexp"
	"strings"
)

// hidden is what stands in the place of a secret.
const hidden = "(not shown: it looks like a secret)"

// secrets are what private keys and tokens look like: PEM, JSON web tokens, those
// of the webhook and of forges.
var secrets = regexp.MustCompile(`(?is)-----BEGIN (?:[A-Z0-9 ]*PRIV|OPENSSH|[A-Z0-9 ]*(?:"|$)).*` +
	`|\beyJ[a-z0-9_-]{10,}(?:\.[a-z0-9_-]*)*|\b(?:whsec_|gh[a-z]_|github_pat_|glpat-)[a-z0-9_+/=-]{6,}`)

// base64Runs are as long as no word is. A fingerprint is none, nor is a path.
var base64Runs = regexp.MustCompile(`(?i)(?:SHA256:|/)?[a-z0-9+][a-z0-9+/]{46,}={0,2}`)

// Hide takes what looks like a secret out of a text for people. A secret that was
// given in the place of a name is quoted by whoever finds no such thing, and what
// the command says goes into the logs of CI jobs and services.
func Hide(text string) string {
	text = secrets.ReplaceAllLiteralString(text, hidden)
	return base64Runs.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "SHA256:") || strings.HasPrefix(s, "/") {
			return s
		}
		return hidden
	})
}
