package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestEnterpriseServerHasAName: people of a GitHub of one's own are not those of
// github.com by accident.
func TestEnterpriseServerHasAName(t *testing.T) {
	dir := t.TempDir()
	secret := write(t, filepath.Join(dir, "secret"), "s3cret")
	for text, want := range map[string]string{
		"":                             "",
		"url: https://github.com/":     "",
		"url: https://git.example.com": "name is missing: github is what grants call accounts of github.com",
		"url: https://git.example.com, name: git.example.com": "",
	} {
		c, r := loadText(t, "domain: a.example.com\nguests:\n  sign_in:\n    providers:\n      - {kind: github, client_id: x, client_secret_file: "+secret+", "+text+"}\n")
		if r.ok() {
			c.signIn(r, new(partners), nil)
		}
		if got := mistakesIn(r); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
