package gateway

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/ci"
)

//go:embed assets/front.html assets/stagedoor.css assets/stagedoor.svg
var pageFiles embed.FS

var frontTemplate = template.Must(template.ParseFS(pageFiles, "assets/front.html"))

// frontPage is what the front page shows.
type frontPage struct {
	Host, SSH, Jump string
	Keys            []frontKey
	Missing         bool // there are no agents
	Snippets        []frontSnippet
}

// frontKey is a host key, as ssh shows it.
type frontKey struct{ Type, Fingerprint string }

type frontSnippet struct {
	ci.Snippet
	Text string
}

// pagePolicy lets a page load nothing but style and pictures of the gateway's own.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// serveFrontPage shows people how to enter a job, and what to paste into a
// pipeline. Programs such as curl get the first in plain text.
func (s *Server) serveFrontPage(w http.ResponseWriter, r *http.Request) {
	settings := s.settings.Load()
	w.Header().Set("Vary", "Accept")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "Stagedoor: SSH into running CI tasks.\n\n    %s\n", settings.sshTo("TASK"))
		return
	}
	var page bytes.Buffer
	if err := frontTemplate.Execute(&page, s.newFrontPage(settings)); err != nil {
		s.log.Error("cannot write the front page", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Write(page.Bytes())
}

func (s *Server) newFrontPage(settings *Settings) frontPage {
	p := frontPage{Host: settings.publicHost(), SSH: settings.sshTo("TASK"), Jump: "ssh -J " + settings.jumpHost() + " TASK"}
	if p.Host == "" {
		p.Host = settings.jumpHost()
	}
	for _, key := range settings.HostKeys {
		p.Keys = append(p.Keys, frontKey{key.PublicKey().Type(), ssh.FingerprintSHA256(key.PublicKey())})
	}
	if root, _, err := s.openAgents(); err == nil {
		root.Close()
	} else {
		p.Missing = true
	}
	for _, snippet := range ci.All() {
		p.Snippets = append(p.Snippets, frontSnippet{snippet, strings.TrimSpace(snippet.For(p.Host))})
	}
	return p
}

// servePageFile serves what pages load.
func servePageFile(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "max-age=3600")
		http.ServeFileFS(w, r, pageFiles, "assets/"+name)
	}
}

// serveGitLabTemplate is what the snippet for GitLab includes.
func (s *Server) serveGitLabTemplate(w http.ResponseWriter, _ *http.Request) {
	gateway := s.settings.Load().publicHost()
	if gateway == "" {
		http.Error(w, noAgents, http.StatusNotFound)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/yaml; charset=utf-8")
	fmt.Fprint(w, ci.GitLabTemplate(gateway))
}
