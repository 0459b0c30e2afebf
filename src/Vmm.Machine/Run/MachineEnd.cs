namespace Vmm.Machine.Run;

/// <summary>How the machine ended: the first reason wins, everybody else sees that it is decided. Any thread.</summary>
internal sealed class MachineEnd : IDisposable
{
    private readonly ManualResetEventSlim _decided = new();
    private RunResult? _result;

    internal bool Decided => Volatile.Read(ref _result) is not null;

    internal void Decide(RunResult result)
    {
        if (Interlocked.CompareExchange(ref _result, result, null) is null)
        {
            _decided.Set();
        }
    }

    internal RunResult Wait()
    {
        _decided.Wait();
        return Volatile.Read(ref _result)!;
    }

    public void Dispose() => _decided.Dispose();
}
