using Vmm.Cpu;
using Vmm.Spec;

namespace Vmm.Cli;

/// <summary>
/// What each command does. Output goes to the writers given, errors as one line each: <c>vmmctl: what, which, what to do</c>.
/// </summary>
public sealed class Application
{
    private readonly Func<KvmSurvey> _survey;
    private readonly TextWriter? _out;
    private readonly TextWriter? _error;

    /// <summary>Uses the process's own streams unless writers are given; they are opened only when something is printed.</summary>
    /// <param name="survey">What KVM of this machine can do; asked only where no daemon is.</param>
    /// <param name="standardOutput">For results.</param>
    /// <param name="standardError">For notes and errors.</param>
    public Application(Func<KvmSurvey> survey, TextWriter? standardOutput = null, TextWriter? standardError = null)
    {
        _survey = survey;
        _out = standardOutput;
        _error = standardError;
    }

    private TextWriter Out => _out ?? Console.Out;

    private TextWriter Errors => _error ?? Console.Error;

    /// <summary>Parses and executes; the answer is the process exit code.</summary>
    public int Execute(string[] args)
    {
        return CommandExecution.Execute(CommandTree.Create(this), Remote.WaitOption.Separate(args), Fail, _out, _error);
    }

    /// <summary>What KVM of this machine can do.</summary>
    internal KvmSurvey Survey() => _survey();

    /// <summary>vmmctl, the launcher, hands <c>run</c> to its own program; who comes here has started vmm-cli by hand.</summary>
    internal int Run()
    {
        Fail("vmm-cli runs no VM: start it as 'vmmctl run', which is the program vmm-run");
        return ExitCodes.Usage;
    }

    internal int Version()
    {
        Out.WriteLine($"vmmctl {typeof(Application).Assembly.GetName().Version?.ToString(3)}");
        return ExitCodes.Done;
    }

    internal int ShowHost(bool json)
    {
        HostReport report = HostReport.Read(_survey());
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

    private void Fail(string text) => Errors.WriteLine("vmmctl: " + text);
}
