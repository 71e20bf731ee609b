package cli

import (
	"strings"
	"testing"
)

func TestHide(t *testing.T) {
	for _, text := range []string{
		`there is no command "gatway"; see stagedoor --help`,
		"/home/alice/averyveryverylongdirectorynameindeed/andanother/key.pem: there is no such file",
		"the key SHA256:q8gpuXvwG4IIMTSl/7SxCX9t8HYE4T+e7ciWijD2Xgg is in use already",
		"permissions: there are X11-forwarding, agent-forwarding, control, exec, gateway-ports, port-forwarding, pty, sftp",
	} {
		if got := Hide(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for _, secret := range []string{
		"eyJhbGciOiJFZERTQSJ9.eyJhdWQiOiJzdGFnZWRvb3IifQ.c2lnbmF0dXJl", "eyjhbgcioijfzertqsj9",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "glpat-XyZabcDEFghi0123456789",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz", `-----BEGIN RSA PRIVATE KEY-----\nb3BlbnNz`, "-----BEGIN OPENSSH P",
		"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAA",
	} {
		for _, text := range []string{secret, "/etc/stagedoor/" + secret + ": no such file", `key: "` + secret + `" is no name`} {
			if strings.HasPrefix(secret, "b3") && text[0] == '/' {
				continue // would be a path
			}
			got := Hide(text)
			if strings.Contains(got, secret[len(secret)-6:]) || !strings.Contains(got, "not shown") {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
}
