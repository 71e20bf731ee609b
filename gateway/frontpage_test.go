package gateway_test

import (
	"encoding/xml"
	"errors"
	"html"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/ci"
	"github.com/stagedoor/stagedoor/gateway"
)

// TestFrontPageForPeople: what to type, what to paste, and by what to know the
// gateway, under its own name.
func TestFrontPageForPeople(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	d.settings.HTTPSAddress = "terminal.example.com:8443"
	if err := d.server.Reload(d.settings); err != nil {
		t.Fatal(err)
	}
	resp, page := d.get("/", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || resp.Header.Get("Vary") != "Accept" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	want := []string{"TASK@127.0.0.1", ssh.FingerprintSHA256(d.hostKey.PublicKey())}
	for _, s := range ci.All() {
		want = append(want, s.System, s.File, s.Asks, strings.TrimSpace(s.For("terminal.example.com:8443")))
	}
	for _, text := range want {
		if !strings.Contains(html.UnescapeString(page), text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if strings.Contains(page, "Not yet") {
		t.Error("it says that there are no agents")
	}
	bare := &distribution{world: newWorld(t, func(s *gateway.Settings) { s.HTTPSAddress = "terminal.example.com:443" })}
	if _, page := bare.get("/", "Accept", "text/html"); !strings.Contains(page, "Not yet") {
		t.Error("it does not say that there are no agents")
	}
	if _, template := bare.get("/ci/gitlab.yml"); template != ci.GitLabTemplate("terminal.example.com") {
		t.Errorf("another template:\n%s", template)
	}
}

// TestFrontPageLoadsNothingElse: its policy lets nothing in, and it needs nothing
// that the policy forbids.
func TestFrontPageLoadsNothingElse(t *testing.T) {
	t.Parallel()
	d := newDistribution(t)
	resp, page := d.get("/", "Accept", "text/html")
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script") {
		t.Errorf("policy %q", policy)
	}
	var loads []string
	for _, e := range elements(t, page) {
		for _, a := range e.Attr {
			name := a.Name.Local
			if strings.HasPrefix(name, "on") || name == "style" || name == "srcset" || e.Name.Local == "script" || e.Name.Local == "style" || e.Name.Local == "iframe" {
				t.Errorf("<%s %s=%q>", e.Name.Local, name, a.Value)
			}
			if name == "src" || name == "href" && e.Name.Local == "link" {
				loads = append(loads, a.Value)
			}
		}
	}
	slices.Sort(loads)
	if want := []string{"/stagedoor.css", "/stagedoor.svg"}; !slices.Equal(slices.Compact(loads), want) {
		t.Errorf("it loads %q, want %q", loads, want)
	}
	for path, kind := range map[string]string{"/stagedoor.css": "text/css", "/stagedoor.svg": "image/svg+xml"} {
		resp, body := d.get(path)
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		if strings.Contains(body, "@import") || strings.Contains(body, "url(") {
			t.Errorf("%s loads more", path)
		}
	}
	_, css := d.get("/stagedoor.css")
	for _, s := range ci.All() { // each can be chosen
		if !regexp.MustCompile(`#choose-` + s.ID + `:checked\) #` + s.ID + `[,\s]`).MatchString(css) {
			t.Errorf("no style shows %s", s.ID)
		}
	}
}

// elements are those of a page whose every tag is closed or one that needs not be.
func elements(t *testing.T, page string) (all []xml.StartElement) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			all = append(all, e)
		}
	}
}
