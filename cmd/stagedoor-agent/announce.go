package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stagedoor/stagedoor/agent/ci"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/agent/publish"
)

// repeatAfter is how often the log says that a job still waits.
const repeatAfter = time.Minute

// announcer writes into the job's log how guests enter, who is there and how long
// the job is held: again whenever that has changed, and once a minute while it
// waits, so that neither the reader nor the CI system takes it for stuck.
type announcer struct {
	system  *ci.System
	log     io.Writer // the job's, or standard error beside it
	command io.Writer // takes the ssh command, alone on a line; nil: the log does
	now     func() time.Time

	password atomic.Pointer[string] // one-time, for a guest without a key; nil or empty: none
	told     string                 // the password that the log has

	last    publish.Report
	printed time.Time // when it last said how a hold goes
	noticed bool
}

// Name is part of publish.Sink.
func (a *announcer) Name() string { return "log" }

// Publish is part of publish.Sink.
func (a *announcer) Publish(_ context.Context, r publish.Report) error {
	now := a.now()
	last := a.last
	a.last = r
	a.tellPassword()
	switch {
	case r.SSHCommand != last.SSHCommand && r.SSHCommand != "":
		a.entrance(r)
	case r.Fingerprint != last.Fingerprint && r.SSHCommand == "":
		fmt.Fprintln(a.log, "stagedoor-agent: the gateway gave no address that could be shown: ask its operator to set ssh.address")
	}
	switch {
	case r.Held && !last.Held:
		a.held(r, now)
	case r.Held && (r.News() != last.News() || r.SSHCommand != last.SSHCommand || !r.Hard.Equal(last.Hard) || extended(last, r) || r.State == hold.Expiring && last.State != hold.Expiring):
		a.progress(r, now)
	case r.Held && now.Sub(a.printed) >= repeatAfter:
		a.progress(r, now)
	case !r.Held && last.Held && r.Outcome != nil:
		fmt.Fprintf(a.log, "Stagedoor: %s%s.\n", ci.Clean(r.Outcome.Why), consequence(r.Outcome.Result))
	case !r.Held && len(r.Guests)+len(last.Guests) > 0 && r.News() != last.News():
		fmt.Fprintf(a.log, "Stagedoor: %s\n", r.News())
	}
	return nil
}

// consequence is what follows for the job where the reason does not say it.
func consequence(r hold.Result) string {
	if r == hold.Failed || r == hold.Canceled {
		return ""
	}
	return ": the job goes on"
}

// tellPassword shows the one-time password, which is in no report.
func (a *announcer) tellPassword() {
	password := a.password.Load()
	if password == nil || *password == "" || *password == a.told {
		return
	}
	a.told = *password
	fmt.Fprintf(a.log, "stagedoor-agent: for one guest without a key, who is asked for it, the one-time password: %s\n", a.told)
}

// extended tells whether somebody has moved the end: by more than what guests do to it in the while between two reports.
func extended(last, r publish.Report) bool { return r.Deadline.Sub(last.Deadline) > 2*repeatAfter }

// entrance says how guests enter. What is to be copied stands alone on its line.
func (a *announcer) entrance(r publish.Report) {
	if a.command != nil {
		fmt.Fprintln(a.command, r.SSHCommand)
	} else {
		io.WriteString(a.log, a.system.Section("Stagedoor: enter this job while it runs", a.now(), r.SSHCommand))
	}
	if r.EndToEndCommand == "" {
		return
	}
	lines := []string{"  " + r.EndToEndCommand}
	if r.CertifiedCommand != "" {
		lines = append(lines, "stagedoor-agent: the same for those whose known_hosts has the CA of the host certificate:", "  "+r.CertifiedCommand)
	}
	lines = append(lines, "stagedoor-agent: host key there: "+r.Fingerprint)
	io.WriteString(a.log, a.system.Details("stagedoor-agent: end to end, so that the gateway sees no plaintext:", a.now(), lines...))
}

// held says, with all that there is to know, that the job is kept.
func (a *announcer) held(r publish.Report, now time.Time) {
	title := "Stagedoor: the job is held"
	if r.Reason != nil {
		title = "Stagedoor: " + r.Reason.String()
	}
	lines := append([]string{"The job is held for you until " + r.Ends(now) + ". Enter it:", ""}, commandLines(r)...)
	lines = append(lines, "", r.News(), "To keep it longer, type there: stagedoor extend. To let it go on: stagedoor resume.")
	io.WriteString(a.log, "\n"+a.system.Section(title, now, lines...))
	a.printed = now
	if r.SSHCommand != "" && !a.noticed {
		a.noticed = true
		io.WriteString(a.log, a.system.Notice(title, r.SSHCommand))
		appendSummary(a.system.SummaryFile, markdown(r))
	}
}

// commandLines are the ssh command, or why there is none.
func commandLines(r publish.Report) []string {
	if r.SSHCommand == "" {
		return []string{"(there is no address yet: the gateway has not answered)"}
	}
	return []string{r.SSHCommand}
}

// progress says what has changed, or that nothing has.
func (a *announcer) progress(r publish.Report, now time.Time) {
	fmt.Fprintf(a.log, "Stagedoor: %s Held until %s:\n%s\n", r.News(), r.Ends(now), strings.Join(commandLines(r), "\n"))
	a.printed = now
}

// appendSummary adds to the page of the job. That it cannot is no reason to stop.
func appendSummary(file, text string) {
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	io.WriteString(f, text)
}

// markdown is a report for a page. What others wrote stands in code, which is not interpreted.
func markdown(r publish.Report) string {
	code := func(s string) string { return "`" + strings.ReplaceAll(ci.Clean(s), "`", "'") + "`" }
	var b strings.Builder
	fmt.Fprintf(&b, "### Stagedoor: %s\n\n", code(r.Task))
	if r.Reason != nil {
		fmt.Fprintf(&b, "%s\n\n", code(r.Reason.String()))
	}
	if r.SSHCommand != "" && r.State != hold.Ended {
		fmt.Fprintf(&b, "```sh\n%s\n```\n\n", r.SSHCommand)
	}
	fmt.Fprintf(&b, "%s", code(r.News()))
	if r.Held && !r.Deadline.IsZero() {
		fmt.Fprintf(&b, " Held until %s.", r.Deadline.UTC().Format("15:04 UTC"))
	}
	return b.String() + "\n"
}
