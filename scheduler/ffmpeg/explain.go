package ffmpeg

// Explanation is what "ffpod explain" prints as JSON: how a command line was
// understood and where it would run.
type Explanation struct {
	Program   Program      `json:"program"`
	Where     Where        `json:"where"`
	Clause    Clause       `json:"clause"`
	Reason    string       `json:"reason"`
	Problems  []string     `json:"problems,omitempty"`
	Kind      Kind         `json:"kind"`
	Requires  Requirements `json:"requires"`
	Operands  []Operand    `json:"operands"`
	OutputKey string       `json:"outputKey"`
	// Stdin says that the program would read its standard input.
	Stdin bool `json:"stdin"`
}

// Explain parses a command line and decides about it. It runs nothing.
func Explain(program string, argv []string, env Environment) Explanation {
	cmd := Parse(program, argv, env.Host)
	d := Decide(cmd, env)
	e := Explanation{
		Program: cmd.Program, Where: d.Where, Clause: d.Clause, Reason: d.Reason, Problems: d.Problems,
		Kind: cmd.Kind, Requires: cmd.Requirements(), Operands: cmd.Operands, OutputKey: cmd.OutputKey(), Stdin: cmd.ReadsStdin,
	}
	if e.Operands == nil {
		e.Operands = []Operand{} // an empty list in JSON, not null
	}
	return e
}
