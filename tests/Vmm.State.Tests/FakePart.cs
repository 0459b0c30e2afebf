namespace Vmm.State.Tests;

/// <summary>A unit that writes down what is asked of it, and does what the test says.</summary>
internal sealed class FakePart(string name, List<string> log, params string[] needs) : IMachinePart
{
    public PartId Id { get; } = new(name);

    public IReadOnlyList<PartId> DependsOn { get; } = [.. needs.Select(n => new PartId(n))];

    internal Func<Deadline, Task> OnQuiesce { get; init; } = _ => Task.CompletedTask;

    internal Action OnResume { get; init; } = () => { };

    internal Action<StateWriter> OnSave { get; init; } = _ => { };

    internal Action<StateReader> OnRestore { get; init; } = _ => { };

    internal Func<string> OnDescribe { get; init; } = () => "well";

    public async ValueTask QuiesceAsync(Quiesce mode, Deadline deadline)
    {
        Log("quiesce");
        await OnQuiesce(deadline);
    }

    public void Resume()
    {
        Log("resume");
        OnResume();
    }

    public void Save(StateWriter to)
    {
        Log("save");
        OnSave(to);
    }

    public void Restore(StateReader from)
    {
        Log("restore");
        OnRestore(from);
    }

    public string Describe() => OnDescribe();

    private void Log(string verb)
    {
        lock (log)
        {
            log.Add($"{verb} {Id}");
        }
    }
}
