namespace Vmm.Storage.Qcow2;

/// <summary>Work for the metadata's thread that its caller waits for.</summary>
internal sealed class MetadataChore(Action work)
{
    private readonly TaskCompletionSource _over = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Has it done, and waits for that. One caller at a time.</summary>
    /// <exception cref="BlockException">It failed, or the image was stopped.</exception>
    internal static void Do(ImageState state, Action work)
    {
        MetadataChore chore = new(work);
        lock (state)
        {
            state.Chore = chore;
            Monitor.Pulse(state); // the metadata's thread alone waits for it
        }

        chore._over.Task.GetAwaiter().GetResult();
    }

    /// <summary>Does what is there. On the metadata's thread.</summary>
    internal static void Run(ImageState state)
    {
        MetadataChore chore;
        BlockException? failure;
        lock (state)
        {
            (chore, failure) = (state.Chore!, state.Damage ?? state.LostFlush);
            state.Chore = null;
        }

        try
        {
            if (failure is null)
            {
                chore.Work();
            }
        }
        catch (BlockException error)
        {
            failure = error;
        }

        if (failure is null)
        {
            chore._over.SetResult();
            return;
        }

        if (failure.Kind == BlockErrorKind.Damaged)
        {
            lock (state)
            {
                state.Stop(failure);
            }
        }

        chore._over.SetException(failure);
    }

    private void Work() => work();
}
