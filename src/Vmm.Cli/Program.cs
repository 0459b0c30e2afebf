using Vmm.Cli;

using MachineHost host = new();
return new Application(host.Run, prepare: host.Prepare).Execute(args);
