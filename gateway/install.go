package gateway

import (
	"bytes"
	_ "embed"
	"net/http"
	"text/template"
)

//go:embed assets/install.sh
var installText string

var installTemplate = template.Must(template.New("install.sh").Parse(installText))

// serveInstall hands out the script by which a job gets the agent for its machine.
// What it downloads is checked against sums that the script carries.
func (s *Server) serveInstall(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	gateway := s.settings.Load().publicHost()
	root, files, err := s.openAgents()
	if err != nil || gateway == "" {
		http.Error(w, noAgents, http.StatusNotFound)
		return
	}
	root.Close()
	var script bytes.Buffer
	if err := installTemplate.Execute(&script, struct {
		Gateway string
		Agents  []agentFile
	}{gateway, files}); err != nil {
		s.log.Error("cannot write the install script", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(script.Bytes())
}
