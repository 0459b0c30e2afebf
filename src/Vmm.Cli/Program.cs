using Vmm.Cli;
using Vmm.Cpu;
using Vmm.Interop;

LossyWriter.UseForErrors();
try
{
    return Run();
}
catch (IOException e)
{
    // Results that cannot be written (a full device) are an error; what a VM or a message says is dropped.
    Console.Error.WriteLine("vmmctl: the output cannot be written: " + e.Message);
    return ExitCodes.Failed;
}

int Run() => new Application(Survey).Execute(args);

// KVM is the business of vmm-run, which lies beside.
static KvmSurvey Survey() => SurveyProgram.Ask(Path.Combine(AppContext.BaseDirectory, "vmm-run"), TimeSpan.FromSeconds(30));
