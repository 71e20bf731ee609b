//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is the result of a run, in the form of its JSON file.
type report struct {
	Time       time.Time         `json:"time"`
	Machine    machine           `json:"machine"`
	Size       int64             `json:"bulkBytes"`
	Rounds     int               `json:"rounds"`
	Echoes     int               `json:"echoes"`
	Connects   int               `json:"connects"`
	Baseline   string            `json:"baseline"`
	Contenders []contenderReport `json:"contenders"`
	Results    []result          `json:"results"`
}

type machine struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPUs int    `json:"cpus"`
	CPU  string `json:"cpu,omitempty"`
	Go   string `json:"go"`
	SSH  string `json:"ssh"`
	// Load is the load average of the minute before the bench; 0: unknown.
	Load float64 `json:"loadBefore"`
}

type contenderReport struct {
	Name  string `json:"name"`
	About string `json:"about"`
	algorithms
}

// A result is one figure of one contender over all rounds.
type result struct {
	Figure    string    `json:"figure"`
	Unit      string    `json:"unit"`
	Better    string    `json:"better"` // "higher" or "lower"
	Contender string    `json:"contender"`
	Values    []float64 `json:"values"` // one for each round
	summary
	// Ratio is to the baseline in the same round; nil when that was not
	// measured.
	Ratio *summary `json:"ratio,omitempty"`
}

func newReport(l *lab, o *options, entrants []*entrant, s *samples) *report {
	r := &report{
		Time:     time.Now().UTC().Truncate(time.Second),
		Machine:  describeMachine(l),
		Size:     int64(o.size),
		Rounds:   o.rounds,
		Echoes:   o.echoes,
		Connects: o.connects,
		Baseline: baseline,
	}
	for _, e := range entrants {
		r.Contenders = append(r.Contenders, contenderReport{e.name(), e.about(), e.agreed})
	}
	for _, f := range s.figures {
		for _, e := range entrants {
			if values := s.values[f.name][e.name()]; known(values) {
				r.Results = append(r.Results, newResult(f, e.name(), values, s.values[f.name][baseline]))
			}
		}
	}
	return r
}

func newResult(f figure, contender string, values, base []float64) result {
	res := result{Figure: f.name, Unit: f.unit, Better: "lower", Contender: contender, Values: values, summary: summarize(values)}
	if f.higher {
		res.Better = "higher"
	}
	if quotients := ratios(values, base); known(quotients) {
		ratio := summarize(quotients)
		res.Ratio = &ratio
	}
	return res
}

func describeMachine(l *lab) machine {
	m := machine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: cpuModel(), Load: l.load}
	// ssh -V speaks on stderr.
	if version, err := exec.Command(l.ssh, "-V").CombinedOutput(); err == nil {
		m.SSH = strings.TrimSpace(string(version))
	}
	return m
}

// loadAverage returns Linux's of the last minute, elsewhere 0.
func loadAverage() float64 {
	data, _ := os.ReadFile("/proc/loadavg")
	minute, _, _ := strings.Cut(string(data), " ")
	load, err := strconv.ParseFloat(minute, 64)
	if err != nil {
		return 0
	}
	return load
}

// busy says that what was measured is not to be trusted. A contender of three
// processes gets more of a busy machine than one of two, and every time that a
// process sleeps it loses its CPU, so that neither times nor ratios hold.
func (m machine) busy() bool { return m.Load > 0.5*float64(m.CPUs) }

// cpuModel returns what Linux calls the first CPU, elsewhere nothing.
func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (r *report) writeJSON(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// writeTable prints the report for people.
func (r *report) writeTable(w io.Writer) error {
	size := byteSize(r.Size)
	fmt.Fprintf(w, "\n%d × %s, %s/%s, %s, %s\n", r.Machine.CPUs, r.Machine.CPU, r.Machine.OS, r.Machine.Arch, r.Machine.Go, r.Machine.SSH)
	fmt.Fprintf(w, "%d rounds, %s of bulk, %d keystrokes, %d connects in each; median and (min..max) of the rounds\n\n",
		r.Rounds, size.String(), r.Echoes, r.Connects)
	if r.Machine.busy() {
		fmt.Fprintf(w, "The machine was busy before (load %.1f): these figures are noise, CPU time holds best.\n\n", r.Machine.Load)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Contenders {
		fmt.Fprintf(t, "%s\t%s\t%s, %s, %s\n", c.Name, c.About, c.KeyExchange, c.Cipher, c.MAC)
	}
	fmt.Fprintf(t, "\nfigure\tcontender\tmedian\tspread\t× %s\t(min..max)\n", r.Baseline)
	last := ""
	for _, res := range r.Results {
		name := ""
		if res.Figure != last {
			name = fmt.Sprintf("%s, %s", res.Figure, res.Unit)
			last = res.Figure
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t(%s..%s)\t%s\n", name, res.Contender, number(res.Median), number(res.Min), number(res.Max), ratioCells(res.Ratio))
	}
	return t.Flush()
}

func ratioCells(r *summary) string {
	if r == nil {
		return "-\t"
	}
	return fmt.Sprintf("%.2f\t(%.2f..%.2f)", r.Median, r.Min, r.Max)
}

// number prints three significant digits.
func number(v float64) string {
	if v == 0 || math.IsNaN(v) {
		return fmt.Sprint(v)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return fmt.Sprintf("%.*f", max(0, digits), v)
}
