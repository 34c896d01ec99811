// Package prove finds out what an ffmpeg can really do on this machine. Its lists
// tell what was compiled in; whether a driver, a device and the rights to it are
// there, only a trial tells.
//
//	lists ─▶ software: listed is enough
//	      └▶ hardware, by family: device node ─▶ -init_hw_device ─▶ encoders, decoders, hwaccel, filters
//
// What is tried:
//
//   - every type of -init_hw_device whose device node exists and may be opened;
//   - every hardware encoder: five frames, which a software decoder must give back;
//   - every hardware decoder and -hwaccel: five frames that a software encoder made,
//     else the hardware's own encoder, downloaded from the hardware;
//   - scaling and tone mapping of each family's filters. The other filters of a
//     family count when its device opens.
//
// A decoder of a codec that nothing here can encode (VC-1) counts when another of
// its family passed. What a family's device does not open for is not tried.
//
// # Guarantees
//
//   - Trials run one after the other; each has a bound, and one that reaches it
//     counts as stalled. After two the rest of the family is not tried.
//   - Everything that ffmpeg lists is a capability or a flaw with its reason, unless
//     the context ended.
//   - The package starts nothing itself: its caller runs the commands, and kills them.
package prove
