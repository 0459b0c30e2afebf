using Vmm.CommandLine;
using Vmm.Cpu;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Run;

LossyWriter.UseForErrors();
try
{
    if (args is [KvmSurvey.Command])
    {
        Console.Out.Write(KvmSurveyor.Take().ToJson());
        return ExitCodes.Done;
    }

    return new RunApplication(ForegroundMachine.Run).Execute(args);
}
catch (IOException e)
{
    // Results that cannot be written (a full device) are an error; what a VM or a message says is dropped.
    Console.Error.WriteLine("vmmctl: the output cannot be written: " + e.Message);
    return ExitCodes.Failed;
}
