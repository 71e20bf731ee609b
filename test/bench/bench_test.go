//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	values := []float64{40, 10, 30, 20}
	for _, test := range []struct{ q, want float64 }{{0, 10}, {0.5, 25}, {1, 40}, {0.25, 17.5}} {
		if got := quantile(values, test.q); got != test.want {
			t.Errorf("quantile(%v) = %v, want %v", test.q, got, test.want)
		}
	}
	if !slices.Equal(values, []float64{40, 10, 30, 20}) {
		t.Errorf("values were changed to %v", values)
	}
	if got := quantile([]float64{7}, 0.99); got != 7 {
		t.Errorf("quantile of one value = %v", got)
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("quantile of nothing = %v, want NaN", got)
	}
}

func TestSummarizeLeavesOutWhatWasNotMeasured(t *testing.T) {
	if got, want := summarize([]float64{3, math.NaN(), 1}), (summary{2, 1, 3}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if known([]float64{math.NaN()}) || known(nil) {
		t.Error("NaN counts as known")
	}
}

func TestRatiosArePairedByRound(t *testing.T) {
	// The second round ran on a machine half as fast, for both alike.
	got := ratios([]float64{80, 40}, []float64{100, 50})
	if !slices.Equal(got, []float64{0.8, 0.8}) {
		t.Errorf("got %v", got)
	}
	if got := ratios([]float64{80}, nil); len(got) != 0 {
		t.Errorf("without a baseline: %v", got)
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{"1": 1, "4k": 4096, "256M": 256 << 20, "256MiB": 256 << 20, "1GiB": 1 << 30, "2gb": 2 << 30} {
		var s byteSize
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("Set(%q): %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1T", "1.5G", "9999999999G"} {
		if err := new(byteSize).Set(text); err == nil {
			t.Errorf("Set(%q) is taken", text)
		}
	}
	s := byteSize(256 << 20)
	if s.String() != "256MiB" {
		t.Errorf("String() = %q", s.String())
	}
}

func TestPick(t *testing.T) {
	name := func(s string) string { return s }
	got, err := pick([]string{"a", "b", "c"}, "c,a", name)
	if err != nil || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := pick([]string{"a"}, "a,d", name); err == nil || !strings.Contains(err.Error(), `"d"`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestParseAlgorithmsTakesTheInnerConnection(t *testing.T) {
	log := `debug1: kex: algorithm: sntrup761x25519-sha512
debug1: kex: server->client cipher: chacha20-poly1305@openssh.com MAC: <implicit> compression: none
debug1: kex: algorithm: curve25519-sha256
debug1: kex: server->client cipher: aes128-ctr MAC: hmac-sha2-256-etm@openssh.com compression: none
`
	got, err := parseAlgorithms(log)
	want := algorithms{"curve25519-sha256", "aes128-ctr", "hmac-sha2-256-etm@openssh.com"}
	if err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := parseAlgorithms("debug1: connecting"); err == nil {
		t.Error("a log that tells nothing is taken")
	}
}

func TestConsumeComparesAndCounts(t *testing.T) {
	const size = 3*blockSize + 100
	var sent bytes.Buffer
	if err := produce(&sent, size); err != nil {
		t.Fatal(err)
	}
	if err := consume(bytes.NewReader(sent.Bytes()), size, true); err != nil {
		t.Errorf("the bytes that were sent: %v", err)
	}
	if err := consume(bytes.NewReader(sent.Bytes()[:size-1]), size, true); err == nil {
		t.Error("a byte that is missing goes unnoticed")
	}
	sent.Bytes()[2*blockSize+5]++
	if err := consume(bytes.NewReader(sent.Bytes()), size, true); err == nil {
		t.Error("a byte that is wrong goes unnoticed")
	}
}

// TestTransferMeetsHostSide joins both ends of a transfer.
func TestTransferMeetsHostSide(t *testing.T) {
	for _, d := range []direction{download, upload} {
		fromGuest, toHost := io.Pipe()
		fromHost, toGuest := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- hostSide([]string{string(d), "1000000", "true"}, fromGuest, toGuest) }()
		e := &entrant{route: &route{}}
		got, err := e.exchange(toHost, fromHost, os.Getpid(), d, 1000000, true)
		if err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		if got.took <= 0 {
			t.Errorf("%s took %v", d, got.took)
		}
		if !math.IsNaN(got.gateway) {
			t.Errorf("%s: there is no gateway, and it took %v s of CPU time", d, got.gateway)
		}
		toHost.Close()
		if err := <-ended; err != nil {
			t.Errorf("%s: host: %v", d, err)
		}
	}
}

func TestTypeKeysRefusesWrongEcho(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	times, err := typeKeys(w, changedBy(r, nil), 20, 0)
	if err != nil || len(times) != 20 {
		t.Errorf("%d times, %v", len(times), err)
	}
	flip := func(b byte) byte { return b ^ 1 }
	r, w = io.Pipe()
	defer w.Close()
	if _, err := typeKeys(w, changedBy(r, flip), 20, 0); err == nil {
		t.Error("wrong bytes are taken for an echo")
	}
}

// changedBy returns a reader of what comes from r, buffered, each byte changed.
func changedBy(r io.Reader, change func(byte) byte) io.Reader {
	echoed := make(chan byte, 100)
	go func() {
		defer close(echoed)
		for b := make([]byte, 1); ; {
			if _, err := r.Read(b); err != nil {
				return
			}
			if change != nil {
				b[0] = change(b[0])
			}
			echoed <- b[0]
		}
	}()
	return byteReader(echoed)
}

type byteReader chan byte

func (c byteReader) Read(p []byte) (int, error) {
	b, ok := <-c
	if !ok {
		return 0, io.EOF
	}
	p[0] = b
	return 1, nil
}

func TestSampleOrderAndReport(t *testing.T) {
	s := &samples{values: make(map[string]map[string][]float64)}
	mibs, echo := figure{"download", "MiB/s", true}, figure{"echo p50", "µs", false}
	for _, v := range []struct {
		contender string
		figure    figure
		value     float64
	}{
		{baseline, mibs, 100}, {baseline, echo, 30}, {"stagedoor", mibs, 90}, {"stagedoor", echo, 45},
		{"stagedoor", mibs, 110}, {baseline, mibs, 200}, {"stagedoor", echo, 60}, {baseline, echo, 30},
	} {
		s.add(v.contender, reading{v.figure, v.value})
	}
	entrants := []*entrant{{contender: &direct{called: baseline}}, {contender: &stagedoor{called: "stagedoor"}}}
	r := newReport(&lab{ssh: "true"}, &options{size: 1 << 20, rounds: 2}, entrants, s)
	if len(r.Results) != 4 || r.Results[1].Contender != "stagedoor" || r.Results[1].Figure != "download" {
		t.Fatalf("results: %+v", r.Results)
	}
	if got, want := *r.Results[1].Ratio, (summary{0.725, 0.55, 0.9}); math.Abs(got.Median-want.Median) > 1e-9 || got.Min != want.Min || got.Max != want.Max {
		t.Errorf("ratio %v, want %v", got, want)
	}
	if r.Results[0].Better != "higher" || r.Results[2].Better != "lower" {
		t.Error("what is better is wrong")
	}
	var table strings.Builder
	if err := r.writeTable(&table); err != nil || !strings.Contains(table.String(), "1.75") {
		t.Errorf("%v in table:\n%s", err, table.String())
	}
}

// TestReportWithoutBaseline: JSON knows no NaN.
func TestReportWithoutBaseline(t *testing.T) {
	s := &samples{values: make(map[string]map[string][]float64)}
	s.add("stagedoor", reading{figure{"download", "MiB/s", true}, 90})
	s.add("stagedoor", reading{figure{"download cpu gateway", "s/GiB", false}, math.NaN()})
	r := newReport(&lab{ssh: "true"}, &options{}, []*entrant{{contender: &stagedoor{called: "stagedoor"}}}, s)
	file := filepath.Join(t.TempDir(), "result.json")
	if err := r.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Results) != 1 || back.Results[0].Ratio != nil || back.Results[0].Median != 90 {
		t.Errorf("results: %+v", back.Results)
	}
}

func TestNumber(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 1234.5: "1234", 99.96: "100.0", 12.345: "12.3", 0.01234: "0.0123"} {
		if got := number(value); got != want {
			t.Errorf("number(%v) = %q, want %q", value, got, want)
		}
	}
}

func TestBusyMachine(t *testing.T) {
	for load, want := range map[float64]bool{0: false, 0.9: false, 1.1: true, 9: true} {
		if got := (machine{CPUs: 2, Load: load}).busy(); got != want {
			t.Errorf("load %v on two CPUs: busy is %v", load, got)
		}
	}
}

func TestCPUOfAllParts(t *testing.T) {
	if got := (transferred{client: 1, gateway: math.NaN(), host: 2}).allCPU(); got != 3 {
		t.Errorf("without a gateway: %v", got)
	}
	if got := (transferred{client: 1, gateway: 4, host: 2}).allCPU(); got != 7 {
		t.Errorf("with a gateway: %v", got)
	}
}

func TestInUnits(t *testing.T) {
	if got := inUnits([]time.Duration{1500 * time.Nanosecond}, time.Microsecond); got[0] != 1.5 {
		t.Errorf("got %v", got)
	}
}
