package placement

// weighers order the pools that passed every filter. Free space weighs more than an even spread of leaders, because a
// full pool is an outage and a busy node is not.
var weighers = []struct {
	name   string
	weight float64
	value  func(Request, Candidate, []Candidate) float64
}{
	{"free capacity", 1, freeCapacity},
	{"few leaders", 0.5, fewLeaders},
}

// freeCapacity is the share of the pool's capacity that is not promised once the request is placed there.
func freeCapacity(req Request, c Candidate, _ []Candidate) float64 {
	total := c.Pool.Provisionable()
	if total <= 0 {
		return 0
	}
	return float64(total-c.Provisioned-req.Size) / float64(total)
}

// fewLeaders is 1 for a node that leads nothing and 0 for the one that leads most of all candidates.
func fewLeaders(_ Request, c Candidate, all []Candidate) float64 {
	most := 0
	for _, other := range all {
		most = max(most, other.Leaders)
	}
	if most == 0 {
		return 1
	}
	return 1 - float64(c.Leaders)/float64(most)
}
