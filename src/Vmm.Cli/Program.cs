using Vmm.Cli;

// MachineHost.Run is the one place where the command line meets the machine.
return new Application(MachineHost.Run).Execute(args);
