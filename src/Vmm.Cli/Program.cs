using Vmm.Cli;
using Vmm.Machine.Run;

return new Application((spec, console, note, stop) =>
{
    using VirtualMachine machine = VirtualMachine.Create(spec, console, note);
    return machine.Run(stop);
}).Execute(args);
