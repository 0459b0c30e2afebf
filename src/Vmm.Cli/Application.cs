using System.CommandLine;
using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Layout;
using Vmm.Machine.Run;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.State;
using Vmm.Storage;

namespace Vmm.Cli;

/// <summary>
/// Starts a machine and runs it to its end; the real one is VirtualMachine, tests pass their own. <paramref name="note"/> takes one-line
/// remarks for the user, null for none.
/// </summary>
public delegate RunResult MachineRunner(RunRequest request, IConsoleEndpoint console, Action<string>? note, CancellationToken stop);

/// <summary>
/// What each command does. Output goes to the writers given, errors as one line each: <c>vmmctl: what, which, what to do</c>.
/// </summary>
public sealed class Application
{
    private readonly MachineRunner _runner;
    private readonly TextWriter? _out;
    private readonly TextWriter? _error;

    /// <summary>Uses the process's own streams unless writers are given; they are opened only when something is printed.</summary>
    /// <param name="runner">Builds and runs the machine of a spec.</param>
    /// <param name="standardOutput">For results.</param>
    /// <param name="standardError">For notes and errors.</param>
    public Application(MachineRunner runner, TextWriter? standardOutput = null, TextWriter? standardError = null)
    {
        _runner = runner;
        _out = standardOutput;
        _error = standardError;
    }

    private TextWriter Out => _out ?? Console.Out;

    private TextWriter Errors => _error ?? Console.Error;

    /// <summary>Parses and executes; the answer is the process exit code.</summary>
    public int Execute(string[] args)
    {
        ParseResult parsed = CommandTree.Create(this).Parse(Remote.WaitOption.Separate(args));
        if (parsed.Errors.Count > 0)
        {
            foreach (string line in UsageErrors.Of(parsed))
            {
                Fail(line);
            }

            return ExitCodes.Usage;
        }

        InvocationConfiguration configuration = new() { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null };
        if (_out is not null)
        {
            configuration.Output = _out;
        }

        if (_error is not null)
        {
            configuration.Error = _error;
        }

        return parsed.Invoke(configuration);
    }

    internal int Version()
    {
        Out.WriteLine($"vmmctl {typeof(Application).Assembly.GetName().Version?.ToString(3)}");
        return ExitCodes.Done;
    }

    internal int ShowHost(bool json)
    {
        HostReport report = HostReport.Read();
        report.Write(Out, json);
        return ExitCodes.Done;
    }

    internal int Schema()
    {
        Out.Write(SpecSchema.Json());
        return ExitCodes.Done;
    }

    internal int ValidateSpec(string file)
    {
        try
        {
            VmSpec spec = SpecReader.ReadFile(file);
            IReadOnlyList<SpecProblem> missing = SpecFiles.Check(spec);
            foreach (SpecProblem problem in missing)
            {
                Fail($"{file}: {problem}");
            }

            if (missing.Count == 0)
            {
                Out.WriteLine($"{file}: ok");
            }

            return missing.Count == 0 ? ExitCodes.Done : ExitCodes.Usage;
        }
        catch (SpecException e)
        {
            foreach (SpecProblem problem in e.Problems)
            {
                Fail(problem.ToString());
            }

            return ExitCodes.Usage;
        }
    }

    internal int Run(RunArguments arguments)
    {
        using CancellationTokenSource stop = new();
        List<string> problems = [];
        if (arguments.ToRequest(problems) is not { } request)
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
                Note($"{spec.Name}: cpuQuota and cpuWeight are for VMs of a vmmd, which has control groups: this one gets all the time it can get");
            }

            RunResult result;
            using (TerminalConsole console = new(terminal, !arguments.NoSerialInput, stop.Cancel))
            using (stop.Token.Register(console.Hurry))
            {
                result = _runner(request, console, arguments.Quiet ? null : Note, stop.Token);
            }

            terminal.Restore();
            return Report(spec, result, arguments.Quiet);
        }
        catch (Exception e) when (e is KvmUnavailableException or BootException or KernelException or SpecException or BlockException or TapException
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
        switch (result.Outcome)
        {
            case RunOutcome.Failed:
                Fail($"{spec.Name}: {result.Message ?? "the VM failed"}");
                break;
            case RunOutcome.Panicked:
                Fail($"{spec.Name}: the guest's kernel panicked");
                break;
            case RunOutcome.TripleFault:
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
