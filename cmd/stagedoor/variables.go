package main

import (
	"slices"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/internal/typo"
)

// otherVariables are those that mean something to others: to the other commands,
// and to an agent on the same machine.
var otherVariables = []string{
	"STAGEDOOR_CONFIG", "STAGEDOOR_TASK",
	"STAGEDOOR_GATEWAY", "STAGEDOOR_GATEWAY_FILE", "STAGEDOOR_TOKEN", "STAGEDOOR_TOKEN_FILE", "STAGEDOOR_AUDIENCE",
	"STAGEDOOR_DIR", "STAGEDOOR_SHELL", "STAGEDOOR_LOGIN_SHELL", "STAGEDOOR_ACCEPT_ENV", "STAGEDOOR_HANGUP_GRACE",
	"STAGEDOOR_END_TO_END_ONLY", "STAGEDOOR_FORGE", "STAGEDOOR_HOST_KEY", "STAGEDOOR_HOST_CERTIFICATE", "STAGEDOOR_LABEL",
}

// validateVariables refuses variables that are no setting, as keys of the file and
// flags are refused: one that is mistyped would be a restriction that does not hold.
func validateVariables(r *report) {
	var settings []string
	for _, f := range fields(new(Config)) {
		if !f.Records {
			settings = append(settings, f.Env())
		}
	}
	for _, name := range cli.UnknownVariables(append(slices.Clone(otherVariables), settings...)) {
		hint := "unset it; stagedoor gateway --help lists the settings"
		if meant := typo.Closest(name, append(settings, "STAGEDOOR_CONFIG")); meant != "" {
			hint = "did you mean " + meant + "?"
		}
		r.append(mistake{Where: quoteIfOdd(name), Text: "there is no such setting; " + hint})
	}
}
