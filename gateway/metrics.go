package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the gateway's numbers. None carries a task or an identity: a
// label with as many values as there are tasks would outgrow Prometheus.
type metrics struct {
	registry      *prometheus.Registry
	signIns       *prometheus.CounterVec
	registrations *prometheus.CounterVec
	refused       *prometheus.CounterVec
	channels      *prometheus.CounterVec
	bytes         *prometheus.CounterVec
	jumps         *prometheus.CounterVec
	jumpBytes     *prometheus.CounterVec
	panics        prometheus.Counter
	handshake     prometheus.Histogram
	dial          prometheus.Histogram
}

// newMetrics registers the gateway's metrics; the gauges are read from s when
// scraped, so that they cannot drift from what s holds.
func newMetrics(s *Server) *metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "stagedoor", Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string, read func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "stagedoor", Name: name, Help: help}, read))
	}
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "stagedoor", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		})
		r.MustRegister(h)
		return h
	}
	m := &metrics{
		registry:      r,
		signIns:       counter("guest_sign_ins_total", "Guests that signed in or were refused.", "result"),
		registrations: counter("host_registrations_total", "Registrations of hosts, by their result.", "result"),
		refused:       counter("connections_refused_total", "Connections turned away before they could sign in.", "reason"),
		channels:      counter("channels_total", "SSH channels spliced, by type and by the side that opened them.", "type", "from"),
		bytes:         counter("channel_bytes_total", "Bytes of channel data spliced, by the side that sent them.", "from"),
		jumps:         counter("jumps_total", "End-to-end connections that guests asked for, by result.", "result"),
		jumpBytes:     counter("jump_bytes_total", "Bytes passed on end to end, by the side that sent them.", "from"),
		handshake:     histogram("guest_handshake_seconds", "From a guest's connection to its signing in."),
		dial:          histogram("host_dial_seconds", "From a guest's first need of its host to the host's answer."),
	}
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "stagedoor", Name: "panics_total", Help: "Panics that were caught. Each is a defect.",
	})
	r.MustRegister(m.panics)
	counted := func(name, help string, read func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "stagedoor", Name: name, Help: help},
			func() float64 { return float64(read()) }))
	}
	counted("audit_events_total", "Events written to the audit stream.", s.audit.Written)
	counted("audit_events_lost_total", "Events that could not be written to the audit stream.", s.audit.Lost)
	gauge("guests", "Guests' connections that are signed in.", func() float64 { return float64(s.guestCount()) })
	gauge("tunnels", "Tunnels to hosts, draining ones included.", func() float64 { return float64(s.tunnelCount()) })
	gauge("tasks", "Tasks with a live tunnel.", func() float64 { return float64(s.taskCount()) })
	gauge("unauthenticated_connections", "Connections that are signing in.", func() float64 { return float64(s.throttle.total()) })
	gauge("penalised_sources", "Addresses that are charged with a penalty.", func() float64 { return float64(s.throttle.penalties.len()) })
	gauge("stalled_bytes", "Memory charged to channels that do not move.", func() float64 { return float64(s.budget.Stalled()) })
	return m
}
