using System.CommandLine;
using Vmm.Interop.Kvm;
using Vmm.CommandLine;
using Vmm.HostNet;
using Vmm.Devices.VhostUser;
using Vmm.HostNet.Shares;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.LifeCycle;
using Vmm.Machine.Boot;
using Vmm.Machine.Layout;
using Vmm.Machine.Run;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage;

namespace Vmm.Run;

/// <summary>
/// Starts a machine and runs it to its end; the real one is VirtualMachine, tests pass their own. <paramref name="note"/> takes one-line
/// remarks for the user, null for none.
/// </summary>
public delegate RunResult MachineRunner(RunRequest request, IConsoleEndpoint console, Action<string>? note, CancellationToken stop);

/// <summary>
/// <c>vmmctl run</c> itself. Errors are one line each, <c>vmmctl: what, which, what to do</c>, for that is what the user has called.
/// </summary>
public sealed class RunApplication
{
    private readonly MachineRunner _runner;
    private readonly TextWriter? _out;
    private readonly TextWriter? _error;

    /// <summary>Uses the process's own streams unless writers are given; they are opened only when something is printed.</summary>
    /// <param name="runner">Builds and runs the machine of a spec.</param>
    /// <param name="standardOutput">For help.</param>
    /// <param name="standardError">For notes and errors.</param>
    public RunApplication(MachineRunner runner, TextWriter? standardOutput = null, TextWriter? standardError = null)
    {
        _runner = runner;
        _out = standardOutput;
        _error = standardError;
    }

    private TextWriter Errors => _error ?? Console.Error;

    /// <summary>Parses and executes; the answer is the process exit code. The words are those behind <c>vmmctl</c>.</summary>
    public int Execute(string[] args)
    {
        RootCommand root = new("vmmctl: virtual machines on KVM");
        root.Subcommands.Add(RunCommand.Create(Run));
        return CommandExecution.Execute(root, args, Fail, _out, _error);
    }

    private int Run(RunArguments arguments)
    {
        using CancellationTokenSource stop = new();
        List<string> problems = [];
        if (RunRequest.From(arguments, problems) is not { } request)
        {
            foreach (string problem in problems)
            {
                Fail(problem);
            }

            return ExitCodes.Usage;
        }

        VmSpec spec = request.Spec;

        using StopSignals signals = new(stop);
        using Terminal terminal = new();
        try
        {
            if (!arguments.NoSerialInput)
            {
                terminal.EnterRawMode();
            }

            if (!arguments.Quiet && (spec.CpuQuota ?? spec.CpuWeight) is not null)
            {
                Note($"{spec.Name}: cpuQuota and cpuWeight are for VMs of a vmmd, which has control groups: this one gets all the time "
                    + "it can get");
            }

            RunResult result;
            using (TerminalConsole console = new(terminal, !arguments.NoSerialInput, stop.Cancel))
            using (stop.Token.Register(console.Hurry))
            {
                result = _runner(request, new RunConsole(console), arguments.Quiet ? null : Note, stop.Token);
            }

            terminal.Restore();
            return Report(spec, result, arguments.Quiet);
        }
        catch (Exception e) when (e is KvmUnavailableException or BootException or KernelException or SpecException or BlockException
            or TapException or HostNetException or HostShareException or VhostUserException
            or InvalidDataException or IOException or UnauthorizedAccessException or HostMismatchException or ArgumentException
            or InvalidOperationException or StateException or UnitsException)
        {
            terminal.Restore();
            Fail(e.Message);
            return ExitCodes.Failed;
        }
        finally
        {
            terminal.Restore();
        }
    }

    private int Report(VmSpec spec, RunResult result, bool quiet)
    {
        switch (result.Reason)
        {
            case ExitReason.Failed:
                Fail($"{spec.Name}: {result.Message ?? "the VM failed"}");
                break;
            case ExitReason.GuestPanicked:
                Fail($"{spec.Name}: the guest's kernel panicked");
                break;
            case ExitReason.TripleFault:
                Fail($"{spec.Name}: the guest crashed its CPU (triple fault){(result.Message is null ? "" : ": " + result.Message)}");
                break;
            default:
                if (!quiet && result.Message is not null)
                {
                    Note($"{spec.Name}: {result.Message}");
                }

                break;
        }

        foreach (string line in result.Report ?? [])
        {
            Errors.WriteLine("  " + line);
        }

        return result.ExitCode;
    }

    private void Note(string text) => Errors.Write($"vmmctl: {text}\r\n");

    private void Fail(string text) => Errors.WriteLine("vmmctl: " + text);
}
