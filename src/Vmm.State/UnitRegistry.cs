namespace Vmm.State;

/// <summary>
/// All units of one machine. Quiescing walks dependencies backwards, restoring and resuming forwards, saving in any order. An operation
/// goes on after a unit failed, as far as that makes sense, and tells the errors of all of them. One operation at a time;
/// <see cref="Describe"/> at any.
/// </summary>
public sealed class UnitRegistry
{
    private readonly Lock _gate = new();
    private readonly List<UnitEntry> _entries = [];
    private string? _operation;

    /// <summary>The operation that goes on, such as <c>quiesce</c>; null: none. Any thread.</summary>
    public string? Operation
    {
        get
        {
            lock (_gate)
            {
                return _operation;
            }
        }
    }

    /// <summary>Adds a unit. The units it depends on may come later.</summary>
    /// <param name="part">The unit.</param>
    /// <param name="atRest">It does not work yet, as in a machine that is to be restored; otherwise it works.</param>
    /// <exception cref="InvalidOperationException">There is one of this name, or an operation goes on.</exception>
    public void Register(IMachinePart part, bool atRest = false)
    {
        lock (_gate)
        {
            RequireNoOperation();
            if (part.Id.ToString() is "" or StateDocument.AboutName || _entries.Exists(e => e.Part.Id == part.Id))
            {
                throw new InvalidOperationException($"The name '{part.Id}' of a unit is taken.");
            }

            _entries.Add(new UnitEntry(part) { Phase = atRest ? UnitPhase.Quiescent : UnitPhase.Running });
        }
    }

    /// <summary>Takes a unit out, such as a device that was unplugged. False: it is not there.</summary>
    /// <exception cref="InvalidOperationException">An operation goes on, or another unit depends on it.</exception>
    public bool Unregister(PartId id)
    {
        lock (_gate)
        {
            RequireNoOperation();
            if (_entries.Find(e => e.Part.DependsOn.Contains(id)) is { } other)
            {
                throw new InvalidOperationException($"The unit '{other.Part.Id}' depends on '{id}'.");
            }

            return _entries.RemoveAll(e => e.Part.Id == id) > 0;
        }
    }

    /// <summary>Every unit at this moment, also while an operation hangs. Any thread.</summary>
    public IReadOnlyList<UnitView> Describe()
    {
        UnitEntry[] entries;
        lock (_gate)
        {
            entries = [.. _entries];
        }

        return [.. entries.Select(e => e.View())];
    }

    /// <summary>
    /// Brings every unit to rest, those of a step at the same time. When one does not come to rest, all go on as before.
    /// </summary>
    /// <exception cref="UnitsException">Units that did not; the others were resumed.</exception>
    public async Task QuiesceAsync(Quiesce mode, TimeSpan time, CancellationToken cancel = default)
    {
        List<List<UnitEntry>> steps = Begin("quiesce");
        try
        {
            using Deadline deadline = new(time, cancel);
            List<UnitError> errors = [];
            for (int i = steps.Count - 1; i >= 0 && errors.Count == 0; i--)
            {
                string?[] outcomes = await Task.WhenAll(steps[i].Select(e => QuiesceOneAsync(e, mode, deadline))).ConfigureAwait(false);
                Gather(errors, steps[i], outcomes);
            }

            if (errors.Count > 0)
            {
                ResumeAll(steps, errors, onlyTouched: true);
                throw new UnitsException("quiesce", errors);
            }
        }
        finally
        {
            End();
        }
    }

    /// <summary>Lets every unit go on.</summary>
    /// <exception cref="UnitsException">Units that did not.</exception>
    public void Resume()
    {
        List<List<UnitEntry>> steps = Begin("resume");
        try
        {
            List<UnitError> errors = [];
            ResumeAll(steps, errors, onlyTouched: false);
            if (errors.Count > 0)
            {
                throw new UnitsException("resume", errors);
            }
        }
        finally
        {
            End();
        }
    }

    /// <summary>The state of every unit; all are at rest. Changes nothing.</summary>
    /// <exception cref="UnitsException">Units that could not write theirs.</exception>
    public IReadOnlyList<UnitBlob> Save()
    {
        List<List<UnitEntry>> steps = Begin("save");
        try
        {
            List<UnitBlob> blobs = [];
            List<UnitError> errors = [];
            foreach (UnitEntry entry in steps.SelectMany(s => s))
            {
                RequireRest(entry);
                StateWriter writer = new(entry.Part.Id);
                if (Try(entry, UnitPhase.Saving, UnitPhase.Quiescent, part => part.Save(writer)) is { } message)
                {
                    entry.Phase = UnitPhase.Quiescent; // saving changes nothing, failing neither
                    errors.Add(new UnitError(entry.Part.Id, message));
                }

                blobs.Add(writer.ToBlob());
            }

            return errors.Count == 0 ? blobs : throw new UnitsException("save", errors);
        }
        finally
        {
            End();
        }
    }

    /// <summary>
    /// Gives every unit its blob, matched by name; a unit without one stays fresh. All are at rest. After an error the machine is of no
    /// use.
    /// </summary>
    /// <exception cref="StateException">A blob has no unit; nothing was changed.</exception>
    /// <exception cref="UnitsException">Units that did not take theirs, or were left out because they depend on one of them.</exception>
    public void Restore(IReadOnlyList<UnitBlob> blobs)
    {
        List<List<UnitEntry>> steps = Begin("restore");
        try
        {
            Dictionary<PartId, UnitBlob> byName = blobs.ToDictionary(b => b.Name);
            HashSet<PartId> units = [.. steps.SelectMany(s => s).Select(e => e.Part.Id)];
            UnitBlob[] strangers = [.. blobs.Where(b => !units.Contains(b.Name))];
            if (strangers.Length > 0)
            {
                string names = string.Join(", ", strangers.Take(10).Select(b => b.Name));
                throw new StateException($"The saved VM has state of units that this machine has not: {names}.");
            }

            RestoreSteps(steps, byName);
        }
        finally
        {
            End();
        }
    }

    private static void RestoreSteps(List<List<UnitEntry>> steps, Dictionary<PartId, UnitBlob> byName)
    {
        List<UnitError> errors = [];
        HashSet<PartId> failed = [];
        foreach (UnitEntry entry in steps.SelectMany(s => s))
        {
            RequireRest(entry);
            PartId id = entry.Part.Id;
            if (entry.Part.DependsOn.Any(failed.Contains))
            {
                failed.Add(id);
                errors.Add(new UnitError(id, $"left out, as it depends on {entry.Part.DependsOn.First(failed.Contains)}"));
            }
            else if (byName.TryGetValue(id, out UnitBlob? blob) &&
                Try(entry, UnitPhase.Restoring, UnitPhase.Quiescent, p => Restore(p, blob)) is { } message)
            {
                failed.Add(id);
                errors.Add(new UnitError(id, message));
            }
        }

        if (errors.Count > 0)
        {
            throw new UnitsException("restore", errors);
        }
    }

    private static void Restore(IMachinePart part, UnitBlob blob)
    {
        StateReader reader = new(blob);
        part.Restore(reader);
        reader.RequireAllTaken();
    }

    private static async Task<string?> QuiesceOneAsync(UnitEntry entry, Quiesce mode, Deadline deadline)
    {
        entry.Phase = UnitPhase.Quiescing;
        try
        {
            // A thread of its own: a unit that blocks must not hold up those beside it, nor the deadline.
            Task<Task> work = Task.Factory.StartNew(
                () => entry.Part.QuiesceAsync(mode, deadline).AsTask(),
                CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
            await work.Unwrap().WaitAsync(deadline.Token).ConfigureAwait(false);
            entry.Phase = UnitPhase.Quiescent;
            return null;
        }
        catch (OperationCanceledException) when (deadline.Token.IsCancellationRequested)
        {
            return $"it did not come to rest within {deadline.Time.TotalSeconds:0.###} s, or the operation was cancelled";
        }
#pragma warning disable CA1031 // whatever a unit fails with belongs to its error
        catch (Exception cause)
#pragma warning restore CA1031
        {
            return cause.Message;
        }
    }

    private static void Gather(List<UnitError> errors, List<UnitEntry> step, string?[] outcomes)
    {
        for (int i = 0; i < outcomes.Length; i++)
        {
            if (outcomes[i] is { } message)
            {
                errors.Add(new UnitError(step[i].Part.Id, message));
            }
        }
    }

    private static void ResumeAll(List<List<UnitEntry>> steps, List<UnitError> errors, bool onlyTouched)
    {
        foreach (UnitEntry entry in steps.SelectMany(s => s))
        {
            if ((!onlyTouched || entry.Phase != UnitPhase.Running) &&
                Try(entry, UnitPhase.Resuming, UnitPhase.Running, part => part.Resume()) is { } message)
            {
                errors.Add(new UnitError(entry.Part.Id, message));
            }
        }
    }

    private static string? Try(UnitEntry entry, UnitPhase during, UnitPhase after, Action<IMachinePart> action)
    {
        entry.Phase = during;
        try
        {
            action(entry.Part);
            entry.Phase = after;
            return null;
        }
#pragma warning disable CA1031 // whatever a unit fails with belongs to its error
        catch (Exception cause)
#pragma warning restore CA1031
        {
            entry.Phase = UnitPhase.Failed;
            return cause.Message;
        }
    }

    private static void RequireRest(UnitEntry entry)
    {
        if (entry.Phase != UnitPhase.Quiescent)
        {
            throw new InvalidOperationException($"The unit '{entry.Part.Id}' is not at rest but {entry.Phase}.");
        }
    }

    private List<List<UnitEntry>> Begin(string operation)
    {
        lock (_gate)
        {
            RequireNoOperation();
            Dictionary<PartId, UnitEntry> byId = _entries.ToDictionary(e => e.Part.Id);
            List<List<UnitEntry>> steps = UnitOrder.Steps([.. _entries.Select(e => e.Part)]).ConvertAll(s => s.ConvertAll(p => byId[p.Id]));
            _operation = operation;
            return steps;
        }
    }

    private void End()
    {
        lock (_gate)
        {
            _operation = null;
        }
    }

    private void RequireNoOperation()
    {
        if (_operation is { } other)
        {
            throw new InvalidOperationException($"Another operation on the units goes on: {other}.");
        }
    }
}
