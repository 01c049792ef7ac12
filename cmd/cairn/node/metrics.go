package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/gateway"
)

// sample is one number that is read when it is asked for.
type sample struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func() float64
}

// samples is a prometheus.Collector of numbers that other parts count anyway.
type samples []sample

// Describe implements prometheus.Collector.
func (s samples) Describe(out chan<- *prometheus.Desc) {
	for _, one := range s {
		out <- one.desc
	}
}

// Collect implements prometheus.Collector.
func (s samples) Collect(out chan<- prometheus.Metric) {
	for _, one := range s {
		out <- prometheus.MustNewConstMetric(one.desc, one.kind, one.read())
	}
}

func newSample(kind prometheus.ValueType, name, help string, read func() float64) sample {
	return sample{prometheus.NewDesc("cairn_"+name, help, nil, nil), kind, read}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// newRegistry registers what the node can be watched by. The API server adds its own.
func newRegistry(member *cluster.Node, runtime *actors.Runtime, actor *replica.Actor, files *webdav.Exporter, door *gateway.Gateway) *prometheus.Registry {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		samples{
			newSample(gauge, "raft_leader", "1 on the node that leads.", func() float64 { return truth(member.IsLeader()) }),
			newSample(gauge, "lease_valid", "1 while this node holds a lease.", func() float64 { return truth(member.LeaseValid()) }),
			newSample(gauge, "state_index", "Last log entry that is part of the state.", func() float64 { return float64(member.View().Index()) }),
			newSample(gauge, "state_diverged", "1 if the state differs from the leader's.", func() float64 {
				_, diverged := member.Machine().Divergence()
				return truth(diverged)
			}),
			newSample(gauge, "actors_queued", "Actors that wait for a place to run.", func() float64 { return float64(runtime.Stats().Queued) }),
			newSample(gauge, "actors_running", "Passes that run now.", func() float64 { return float64(runtime.Stats().Running) }),
			newSample(gauge, "actors_slow", "Passes that have run for long.", func() float64 { return float64(runtime.Stats().Slow) }),
			newSample(counter, "actors_passes_total", "Passes that have ended.", func() float64 { return float64(runtime.Stats().Passes) }),
			newSample(counter, "actors_failures_total", "Passes that ended with an error.", func() float64 { return float64(runtime.Stats().Failures) }),
			newSample(counter, "actors_panics_total", "Passes that panicked.", func() float64 { return float64(runtime.Stats().Panics) }),
			newSample(gauge, "orphans", "Complete objects on the pools that belong to no share.", func() float64 { return float64(len(actor.Orphans())) }),
			newSample(counter, "webdav_requests_total", "Requests for shares and snapshots.", func() float64 { return float64(files.Counters().Requests) }),
			newSample(counter, "webdav_refused_total", "Requests answered with a status of 400 or more.", func() float64 { return float64(files.Counters().Refused) }),
			newSample(counter, "webdav_received_bytes_total", "Bytes of request bodies.", func() float64 { return float64(files.Counters().BytesIn) }),
			newSample(counter, "webdav_sent_bytes_total", "Bytes of response bodies.", func() float64 { return float64(files.Counters().BytesOut) }),
			newSample(counter, "gateway_forwarded_total", "Requests that other nodes have answered.", func() float64 { return float64(door.Counters().Forwarded) }),
			newSample(counter, "gateway_waited_total", "Requests that had to wait for a share that nobody served.", func() float64 { return float64(door.Counters().Waited) }),
			newSample(counter, "gateway_refused_total", "Requests that nobody has served in time.", func() float64 { return float64(door.Counters().Refused) }),
			newSample(counter, "gateway_lost_total", "Requests whose connection to another node broke before the answer.", func() float64 { return float64(door.Counters().Lost) }),
		},
	)
	return registry
}
