package main

import (
	"maps"
	"os"
	"strings"
	"unicode"

	"github.com/stagedoor/stagedoor/auth/issuer"
)

// What a Hello may hold.
const (
	maxLabels     = 32
	maxLabelValue = 256
)

// allLabels are those of --label, and in a job of GitHub Actions who set off this
// attempt: whoever presses re-run is in no claim of the job's token. A gateway whose
// operator allows it lets that account in as well.
func (c *config) allLabels() map[string]string {
	who := os.Getenv("GITHUB_TRIGGERING_ACTOR")
	unfit := who == "" || len(who) > maxLabelValue || strings.ContainsFunc(who, func(r rune) bool { return !unicode.IsPrint(r) })
	if _, set := c.labels[issuer.LabelTriggeringActor]; os.Getenv("GITHUB_ACTIONS") != "true" || unfit || set || len(c.labels) >= maxLabels {
		return c.labels
	}
	labels := map[string]string{issuer.LabelTriggeringActor: who}
	maps.Copy(labels, c.labels)
	return labels
}
